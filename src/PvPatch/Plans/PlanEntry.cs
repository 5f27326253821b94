using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace PvPatch.Plans;

/// <summary>
/// One site of a plan in 48 bytes: where, how long, which outcome, and the old and new bytes side by side so that checking and
/// writing a site are a few vector instructions. Bytes behind the site's length are zero in both.
/// </summary>
/// <remarks>A site longer than 16 bytes keeps its bytes in the plan's overflow: the first word of <see cref="Old"/> is the offset of the old ones, the new ones follow.</remarks>
[StructLayout(LayoutKind.Sequential, Size = SizeInBytes)]
internal struct PlanEntry
{
    public const int SizeInBytes = 48;
    public const int MaxInPlace = 16;

    public ulong Address;
    public int Outcome;
    public byte Length;
    public Vector128<byte> Old;
    public Vector128<byte> New;

    public readonly bool IsInPlace => Length <= MaxInPlace;

    public int OverflowOffset
    {
        readonly get => Old.AsInt32().GetElement(0);
        set => Old = Vector128.CreateScalar(value).AsByte();
    }

    /// <summary>The masks that keep the first n bytes of a vector, by n.</summary>
    public static Vector128<byte>[] Masks { get; } = MakeMasks();

    public static Span<byte> AsBytes(ref Vector128<byte> vector) =>
        MemoryMarshal.CreateSpan(ref Unsafe.As<Vector128<byte>, byte>(ref vector), MaxInPlace);

    /// <summary>At most 16 bytes as a vector, zero behind them.</summary>
    public static Vector128<byte> Pad(ReadOnlySpan<byte> bytes)
    {
        Vector128<byte> padded = default;
        bytes.CopyTo(AsBytes(ref padded));
        return padded;
    }

    private static Vector128<byte>[] MakeMasks()
    {
        var masks = new Vector128<byte>[MaxInPlace + 1];
        for (int n = 0; n < masks.Length; n++)
        {
            AsBytes(ref masks[n])[..n].Fill(0xff);
        }

        return masks;
    }
}
