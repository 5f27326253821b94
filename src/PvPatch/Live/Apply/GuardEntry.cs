using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>One site for the guard routine: 32 bytes, read by machine code, so the offsets matter.</summary>
[StructLayout(LayoutKind.Sequential, Size = SizeInBytes)]
internal unsafe struct GuardEntry
{
    public const int SizeInBytes = 32;
    public const int GuardOffset = 8;
    public const int HeadOffset = 10;
    public const int TailLengthOffset = 12;
    public const int TailOffset = 16;

    /// <summary>eb fe: a jump to itself.</summary>
    public const ushort Spin = 0xfeeb;

    /// <summary>The site's first byte in the write view.</summary>
    public byte* Site;

    /// <summary>Two bytes that keep executors out of the rest: a jump to the forwarding island, or to itself.</summary>
    public ushort Guard;

    /// <summary>The first two bytes to be.</summary>
    public ushort Head;

    /// <summary>How many bytes follow the first two.</summary>
    public int TailLength;

    // The bytes behind the first two, one after the other.
    private ulong _tailLow;
    private ulong _tailHigh;

    public static GuardEntry Create(byte* site, int length, SiteBytes bytes, sbyte forward) => new()
    {
        Site = site,
        Guard = forward == 0 ? Spin : (ushort)(0xeb | (byte)forward << 8),
        Head = (ushort)bytes.Low,
        TailLength = length - 2,
        _tailLow = bytes.Low >> 16 | bytes.High << 48,
        _tailHigh = bytes.High >> 16,
    };

    /// <summary>The bytes behind the first two.</summary>
    public readonly ReadOnlySpan<byte> Tail =>
        MemoryMarshal.CreateReadOnlySpan(in Unsafe.As<ulong, byte>(ref Unsafe.AsRef(in _tailLow)), TailLength);
}
