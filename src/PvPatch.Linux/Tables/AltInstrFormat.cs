using PvPatch.Linux.Files;

namespace PvPatch.Linux.Tables;

/// <summary>Format of a record of <c>.altinstructions</c>. Every layout a kernel has had is a value of this type.</summary>
internal sealed class AltInstrFormat
{
    private const int NotBit = 0x8000;

    // Feature words number about 24 today; a number beyond 32 words is no feature but another field read as one.
    private const int FeatureLimit = 32 * 32;

    private AltInstrFormat(string name, int bitness, int stride, int dataSize)
    {
        Name = name;
        Bitness = bitness;
        Stride = stride;
        DataSize = dataSize;
    }

    /// <summary>
    /// 2.6.20 to about 2.6.35, 32-bit: address u32, replacement u32, feature u8, length u8, replacement length u8, one byte unused.
    /// </summary>
    public static AltInstrFormat Absolute32 { get; } = new("absolute, 32-bit", 32, 12, 11) { AddressSize = 4, FeatureSize = 1 };

    /// <summary>
    /// Up to about 2.6.35 (2.6.32, for one), 64-bit: address u64, replacement u64, feature u8, length u8, replacement length u8, five bytes
    /// unused.
    /// </summary>
    public static AltInstrFormat Absolute64 { get; } = new("absolute, 64-bit", 64, 24, 19) { AddressSize = 8, FeatureSize = 1 };

    /// <summary>
    /// Some kernels between 2.6.33 and 3.5 (3.0, for one), 32-bit: as <see cref="Absolute32"/>, but with a feature of 16 bits and nothing
    /// unused.
    /// </summary>
    public static AltInstrFormat Absolute32Wide { get; } = new(
        "absolute, 32-bit, 16-bit feature", 32, 12, 12)
    { AddressSize = 4, FeatureSize = 2 };

    /// <summary>
    /// Some kernels between 2.6.33 and 3.5 (3.0, for one), 64-bit: as <see cref="Absolute64"/>, but with a feature of 16 bits and four
    /// bytes unused.
    /// </summary>
    public static AltInstrFormat Absolute64Wide { get; } = new(
        "absolute, 64-bit, 16-bit feature", 64, 24, 20)
    { AddressSize = 8, FeatureSize = 2 };

    /// <summary>
    /// 3.6, and again in late 5.10 stable kernels and 6.1: address s32, replacement s32 (each relative to itself), feature u16 whose bit
    /// 15 means "not" (never set in the older kernels), length u8, replacement length u8.
    /// </summary>
    public static AltInstrFormat Relative { get; } = new("relative", 0, 12, 12) { FeatureSize = 2, IsRelative = true };

    /// <summary>About 4.0 to 5.12 (4.18, for one): as <see cref="Relative"/>, followed by the length of the padding u8.</summary>
    public static AltInstrFormat RelativePadded { get; } = new(
        "relative, padding length", 0, 13, 13)
    { FeatureSize = 2, IsRelative = true, HasPadding = true };

    /// <summary>
    /// About 6.3 and later (6.12, for one): as <see cref="Relative"/>, but with a feature u16 and flags u16 of their own.
    /// </summary>
    public static AltInstrFormat RelativeFlags { get; } = new(
        "relative, flags", 0, 14, 14)
    { FeatureSize = 2, IsRelative = true, HasFlags = true };

    /// <summary>All formats, from the oldest to the newest.</summary>
    public static IReadOnlyList<AltInstrFormat> All { get; } =
        [Absolute32, Absolute64, Absolute32Wide, Absolute64Wide, RelativePadded, Relative, RelativeFlags];

    /// <summary>A name for messages.</summary>
    public string Name { get; }

    /// <summary>32 or 64 for formats that occur in such kernels only, 0 for formats that occur in both.</summary>
    public int Bitness { get; }

    /// <summary>The distance from one record to the next, in bytes.</summary>
    public int Stride { get; }

    /// <summary>
    /// The bytes of a record that are used. Unused bytes come from the alignment of the next record, so the last record of a
    /// table may end here.
    /// </summary>
    public int DataSize { get; }

    private int AddressSize { get; init; } = 4;

    private int FeatureSize { get; init; }

    private bool IsRelative { get; init; }

    private bool HasPadding { get; init; }

    private bool HasFlags { get; init; }

    /// <summary>The formats whose records can fill a table of a size.</summary>
    /// <param name="size">The size of the table in bytes.</param>
    /// <param name="bitness">32 or 64: what the kernel is built for.</param>
    /// <returns>The formats, from the oldest to the newest.</returns>
    public static IReadOnlyList<AltInstrFormat> Candidates(long size, int bitness) =>
        [.. All.Where(f => f.FitsBitness(bitness) && f.FitsSize(size))];

    /// <summary>Whether records of this format can fill a table of a size.</summary>
    /// <param name="size">The size of the table in bytes.</param>
    /// <returns>Whether they can; a table of 0 bytes is filled by none of them.</returns>
    public bool FitsSize(long size) => size >= 0 && (size % Stride == 0 || size % Stride >= DataSize);

    /// <summary>The name of the format.</summary>
    /// <returns>The name.</returns>
    public override string ToString() => $"{Name} ({Stride} bytes)";

    internal bool FitsBitness(int bitness) => Bitness == 0 || Bitness == bitness;

    /// <summary>The number of records in a table whose size fits.</summary>
    internal int CountOf(int size) => (size / Stride) + (size % Stride == 0 ? 0 : 1);

    /// <summary>Decodes one record of <see cref="DataSize"/> bytes; false where an address or a length leaves the address space.</summary>
    internal bool TryDecode(ReadOnlySpan<byte> record, VirtualAddress address, int bitness, out AltInstr alternative)
    {
        int at = 2 * AddressSize;
        bool fits = TryAddress(record, address, bitness, out ulong site)
            & TryAddress(record[AddressSize..], address + AddressSize, bitness, out ulong replacement);
        int feature = FeatureSize == 1 ? record[at] : record[at] | (record[at + 1] << 8);
        at += FeatureSize;
        int options = 0;
        if (HasFlags)
        {
            options = record[at] | (record[at + 1] << 8);
            at += 2;
        }
        else if (IsRelative && (feature & NotBit) != 0)
        {
            options = (int)AltInstrOptions.Not;
            feature &= ~NotBit;
        }

        alternative = new AltInstr
        {
            Address = site,
            ReplacementAddress = replacement,
            Feature = (ushort)feature,
            Options = (AltInstrOptions)options,
            Length = record[at],
            ReplacementLength = record[at + 1],
            PaddingLength = HasPadding ? record[at + 2] : (byte)0,
        };
        return fits
            && FileRange.FitsAddressSpace(site, alternative.Length, bitness)
            && FileRange.FitsAddressSpace(replacement, alternative.ReplacementLength, bitness);
    }

    /// <summary>Whether a record makes sense by itself: lengths that fit each other, a feature and flags that can be.</summary>
    internal static bool IsSane(AltInstr record) =>
        record.ReplacementLength <= record.Length
        && record.PaddingLength <= record.Length
        && record.Feature < FeatureLimit
        && (record.Options & ~(AltInstrOptions.Not | AltInstrOptions.DirectCall)) == 0;

    private bool TryAddress(ReadOnlySpan<byte> field, VirtualAddress fieldAddress, int bitness, out ulong address)
    {
        if (!IsRelative)
        {
            address = AddressSize == 8
                ? System.Buffers.Binary.BinaryPrimitives.ReadUInt64LittleEndian(field)
                : System.Buffers.Binary.BinaryPrimitives.ReadUInt32LittleEndian(field);
            return true;
        }

        int distance = System.Buffers.Binary.BinaryPrimitives.ReadInt32LittleEndian(field);
        ulong last = bitness == 32 ? uint.MaxValue : ulong.MaxValue;
        address = unchecked(fieldAddress.Value + (ulong)(long)distance);
        return address <= last && (distance < 0 ? address < fieldAddress.Value : address >= fieldAddress.Value);
    }
}
