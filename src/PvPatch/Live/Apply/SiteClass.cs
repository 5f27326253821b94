using System.Runtime.Intrinsics.X86;

namespace PvPatch.Live;

/// <summary>How a site can be written while other threads run it.</summary>
public enum SiteClass : byte
{
    /// <summary>Inside an aligned 8 bytes: one 8-byte compare-and-swap.</summary>
    Atomic8,

    /// <summary>Inside an aligned 16 bytes, on a processor with AVX: one aligned 16-byte store.</summary>
    Atomic16,

    /// <summary>At most 8 bytes inside a 64-byte line: one 8-byte store. Only with <see cref="ArenaOptions.TrustCacheLines"/>.</summary>
    Line,

    /// <summary>Anything else up to 15 bytes whose first two lie inside an aligned 8: guard, tail, head, with a barrier behind each.</summary>
    Guarded,

    /// <summary>Only while no thread is in generated code.</summary>
    QuiescentOnly,
}

/// <summary>Finds a site's class. Pure.</summary>
internal static class SiteClassifier
{
    /// <summary>The longest live site: an x86 instruction has at most 15 bytes (SDM volume 2, 2.3.11).</summary>
    public const int MaxLiveLength = 15;

    public const int LineSize = 64;

    /// <summary>Whether aligned 16-byte stores are atomic: on processors with AVX (SDM volume 3, 8.1.1).</summary>
    public static bool HasAtomic16 => Avx.IsSupported;

    /// <summary>The class.</summary>
    /// <param name="address">Where the site begins.</param>
    /// <param name="length">Its bytes.</param>
    /// <param name="single">Whether it holds one instruction, and a call's return address is its end.</param>
    /// <param name="atomic16">Whether 16-byte stores are atomic.</param>
    /// <param name="trustLines">Whether a store inside a line counts as one event.</param>
    public static SiteClass Classify(VirtualAddress address, int length, bool single, bool atomic16, bool trustLines)
    {
        if (!single || length is < 1 or > MaxLiveLength)
        {
            return SiteClass.QuiescentOnly;
        }

        return Fits(address, length, 8) ? SiteClass.Atomic8
            : atomic16 && Fits(address, length, 16) ? SiteClass.Atomic16
            : trustLines && length <= 8 && Fits(address, length, LineSize) ? SiteClass.Line
            : Fits(address, 2, 8) ? SiteClass.Guarded
            : SiteClass.QuiescentOnly;
    }

    /// <summary>Whether bytes lie inside an aligned stretch.</summary>
    public static bool Fits(VirtualAddress address, int length, int alignment) =>
        (int)(address.Value & (ulong)(alignment - 1)) + length <= alignment;
}
