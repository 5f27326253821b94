using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace PvPatch.Plans;

/// <summary>
/// One site of a plan in 16 bytes. Its old bytes are an <see cref="OldForm"/> with <see cref="Field"/> in the form's hole, its new bytes a
/// <see cref="NewForm"/> with the distance from <see cref="Address"/> in the form's field. Both tables are shared by all sites.
/// </summary>
/// <remarks>
/// What no form describes (more than 16 bytes, several fix-ups, bytes that are no indirect call) is in the plan's overflow: outcome, old bytes, new
/// bytes, beginning at <see cref="Field"/>.
/// </remarks>
[StructLayout(LayoutKind.Sequential, Size = SizeInBytes)]
internal readonly struct PlanEntry
{
    public const int SizeInBytes = 16;

    /// <summary>The first number that is no old form but says: in the overflow, with so many bytes more than this number.</summary>
    public const int FirstOverflow = 0xff00;

    public readonly ulong Address;
    public readonly int Field;
    private readonly ushort _old;
    private readonly ushort _new;

    private PlanEntry(ulong address, int field, int old, int @new)
    {
        Address = address;
        Field = field;
        _old = (ushort)old;
        _new = (ushort)@new;
    }

    public int Old => _old;

    public int New => _new;

    public bool IsOverflow => _old >= FirstOverflow;

    public int OverflowLength => _old - FirstOverflow;

    public static PlanEntry InOverflow(ulong address, int length, int offset) => new(address, offset, FirstOverflow + length, 0);

    /// <summary>Stores an entry as one vector.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(ref PlanEntry entry, ulong address, int field, int old, int @new) =>
        Unsafe.As<PlanEntry, Vector128<ulong>>(ref entry) = Vector128.Create(address, (uint)field | (ulong)(uint)old << 32 | (ulong)(uint)@new << 48);
}

/// <summary>What the old bytes of many sites have in common: everything but the displacement of their call.</summary>
internal struct OldForm
{
    /// <summary>The bytes; zero in the hole and behind the site.</summary>
    public Vector128<byte> Bytes;

    /// <summary>Puts the bytes of a field into the hole: the number of the field's byte, or 0x80 for none.</summary>
    public Vector128<byte> Insert;

    /// <summary>Ones over the site, the hole included.</summary>
    public Vector128<byte> Whole;

    public int Length;

    /// <summary>Old bytes of a site.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly Vector128<byte> With(int field) => Bytes | Vector128.ShuffleNative(Vector128.CreateScalarUnsafe(field).AsByte(), Insert);
}

/// <summary>What the new bytes of many sites have in common, and what is said of those sites.</summary>
internal struct NewForm
{
    /// <summary>The bytes; zero in the field of the fix-up and behind the site, and where the site keeps its bytes.</summary>
    public Vector128<byte> Bytes;

    /// <summary>Puts the distance into the fix-up's field: the number of the distance's byte, or 0x80 for none.</summary>
    public Vector128<byte> Insert;

    /// <summary>Ones over the site; nothing where the site keeps its bytes.</summary>
    public Vector128<byte> Written;

    /// <summary>Target less the end of its instruction: less a site's address, the displacement.</summary>
    public ulong Origin;

    public int Outcome;

    /// <summary>1, or 0 where the site keeps its bytes.</summary>
    public int Changes;

    /// <summary>New bytes of a site that does not keep its bytes; nothing where it does.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly Vector128<byte> At(ulong address) =>
        Bytes | Vector128.ShuffleNative(Vector128.CreateScalarUnsafe(unchecked((int)(Origin - address))).AsByte(), Insert);

    /// <summary>New bytes of a site with these old bytes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly Vector128<byte> At(ulong address, Vector128<byte> old) => Vector128.AndNot(old, Written) | At(address);
}

/// <summary>Vectors that stand for the up to 16 bytes of a site.</summary>
internal static class SiteVector
{
    public const int MaxLength = 16;

    /// <summary>A shuffle that takes nothing.</summary>
    public static Vector128<byte> Nothing => Vector128.Create((byte)0x80);

    /// <summary>Ones over the first n bytes, by n.</summary>
    public static Vector128<byte>[] Masks { get; } = [.. Enumerable.Range(0, MaxLength + 1).Select(static n => Numbers(i => i < n ? 0xff : 0))];

    /// <summary>The bytes of a site, zero behind them.</summary>
    public static Vector128<byte> Pad(ReadOnlySpan<byte> bytes)
    {
        Span<byte> padded = stackalloc byte[MaxLength];
        padded.Clear();
        bytes.CopyTo(padded);
        return Vector128.Create(padded);
    }

    /// <summary>A shuffle that moves the first bytes of a vector to a place.</summary>
    public static Vector128<byte> Insert(int at, int size) => Numbers(i => i >= at && i < at + size ? i - at : 0x80);

    /// <summary>A shuffle that moves the bytes at a place to the front.</summary>
    public static Vector128<byte> Extract(int at, int size) => Numbers(i => i < size ? at + i : 0x80);

    private static Vector128<byte> Numbers(Func<int, int> of)
    {
        Span<byte> bytes = stackalloc byte[MaxLength];
        for (int i = 0; i < bytes.Length; i++)
        {
            bytes[i] = (byte)of(i);
        }

        return Vector128.Create(bytes);
    }
}

/// <summary>The part of a segment where 16 bytes can be read and written: what lets a site be handled as one vector, whatever its length.</summary>
/// <param name="bytes">The segment's bytes.</param>
/// <param name="start">The run address of the first.</param>
internal readonly ref struct VectorWindow(Span<byte> bytes, ulong start)
{
    private readonly ref byte _first = ref MemoryMarshal.GetReference(bytes);
    private readonly ulong _start = start;
    private readonly ulong _count = (ulong)Math.Max(0, bytes.Length - (SiteVector.MaxLength - 1));

    // An address below the window wraps to a great offset: one comparison says it all.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool Holds(ulong address) => unchecked(address - _start) < _count;

    /// <summary>The byte at an address that the window <see cref="Holds"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ref byte At(ulong address) => ref Unsafe.Add(ref _first, (nint)(address - _start));
}
