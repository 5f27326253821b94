using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace PvPatch.Machine;

/// <summary>
/// The bytes of a site of at most 16, zero behind its length: the form in which sites are compared, finished and written, offline and live.
/// </summary>
/// <param name="Low">Bytes 0 to 7, the first one lowest.</param>
/// <param name="High">Bytes 8 to 15.</param>
internal readonly record struct SiteBytes(ulong Low, ulong High)
{
    /// <summary>The longest site that is held as one value.</summary>
    public const int MaxLength = 16;

    /// <summary>The longest x86 instruction in bytes (SDM volume 2, 2.3.11).</summary>
    public const int LongestInstruction = 15;

    public Vector128<byte> Vector => Vector128.Create(Low, High).AsByte();

    public static SiteBytes From(Vector128<byte> bytes) => new(bytes.AsUInt64().ToScalar(), bytes.AsUInt64().GetElement(1));

    /// <summary>A shuffle that takes nothing.</summary>
    public static Vector128<byte> Nothing => Vector128.Create((byte)0x80);

    /// <summary>Ones over the first n bytes, by n.</summary>
    public static Vector128<byte>[] Masks { get; } = [
        .. Enumerable.Range(0, MaxLength + 1).Select(static n => Numbers(i => i < n ? 0xff : 0))];

    /// <summary>The bytes of a site, zero behind them.</summary>
    public static Vector128<byte> Pad(ReadOnlySpan<byte> bytes) => From(bytes).Vector;

    /// <summary>A shuffle that moves the first bytes of a vector to a place.</summary>
    public static Vector128<byte> Insert(int at, int size) => Numbers(i => i >= at && i < at + size ? i - at : 0x80);

    /// <summary>A shuffle that moves the bytes at a place to the front.</summary>
    public static Vector128<byte> Extract(int at, int size) => Numbers(i => i < size ? at + i : 0x80);

    public static SiteBytes From(ReadOnlySpan<byte> bytes)
    {
        Span<byte> padded = stackalloc byte[MaxLength];
        padded.Clear();
        bytes.CopyTo(padded);
        return MemoryMarshal.Read<SiteBytes>(padded);
    }

    /// <summary>Reads a site; 16 bytes are readable there.</summary>
    public static unsafe SiteBytes Read(byte* at, int length) => new SiteBytes(*(ulong*)at, *(ulong*)(at + 8)).Cut(length);

    /// <summary>The first bytes, zeros behind.</summary>
    public SiteBytes Cut(int length) =>
        length >= 8 ? new SiteBytes(Low, length == MaxLength ? High : High & (1UL << (length - 8) * 8) - 1)
            : new SiteBytes(Low & (1UL << length * 8) - 1, 0);

    /// <summary>These bytes with a 32-bit field, which holds zero, filled in.</summary>
    /// <param name="field">Where the field begins: 0 to 12.</param>
    /// <param name="value">Its value.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public SiteBytes With(int field, int value)
    {
        // Shifted into 16 bytes: its parts in the lower and the upper word.
        ulong wide = (uint)value;
        int shift = field * 8;
        return shift < 64
            ? new SiteBytes(Low | wide << shift, High | wide >> 1 >> 63 - shift) : new SiteBytes(Low, High | wide << shift - 64);
    }

    public void CopyTo(Span<byte> destination, int length)
    {
        Span<byte> padded = stackalloc byte[MaxLength];
        MemoryMarshal.Write(padded, this);
        padded[..length].CopyTo(destination);
    }

    public byte[] ToArray(int length)
    {
        byte[] bytes = new byte[length];
        CopyTo(bytes, length);
        return bytes;
    }

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
