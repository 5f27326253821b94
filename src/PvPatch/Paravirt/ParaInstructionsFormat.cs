using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Paravirt;

/// <summary>
/// One on-disk layout of <c>.parainstructions</c> (struct paravirt_patch, later paravirt_patch_site), and its reader and writer.
/// </summary>
/// <remarks>
/// The address field is a word of the kernel, then one byte of type, one of length, and (until 4.20 as a field, later only as
/// leftover of the assembler macro) two of clobbers; records are aligned to a word. The kernel's own loop goes by the structure's
/// size, so a last record without its padding still counts: its section is then not a multiple of the stride.
/// </remarks>
public sealed class ParaInstructionsFormat
{
    private readonly int _addressSize;

    private ParaInstructionsFormat(string name, int bitness, int stride, int shortestLast, bool hasClobbers, KernelClobberEncoding clobbers)
    {
        Name = name;
        Bitness = bitness;
        Stride = stride;
        ShortestLastRecord = shortestLast;
        HasClobbers = hasClobbers;
        Clobbers = clobbers;
        _addressSize = bitness / 8;
    }

    /// <summary>i386, 2.6.20 to 2.6.29: 8 bytes, clobbers in the encoding of that time.</summary>
    public static ParaInstructionsFormat I386Before2630 { get; } =
        new("i386-2.6.20", 32, 8, 8, hasClobbers: true, KernelClobberEncoding.I386);

    /// <summary>i386, 2.6.30 to 6.7: 8 bytes; a last record of 6 where the assembler macro gives no clobbers (4.20 and later).</summary>
    public static ParaInstructionsFormat I386 { get; } =
        new("i386", 32, 8, 6, hasClobbers: true, KernelClobberEncoding.I386Since2630);

    /// <summary>x86-64, 2.6.25 to 2.6.29: 16 bytes, the last record may end after its 12.</summary>
    public static ParaInstructionsFormat X64Before2630 { get; } =
        new("x86-64-2.6.25", 64, 16, 12, hasClobbers: true, KernelClobberEncoding.X64Before2630);

    /// <summary>x86-64, 2.6.30 to 4.19: 16 bytes, the last record may end after its 12.</summary>
    public static ParaInstructionsFormat X64 { get; } =
        new("x86-64", 64, 16, 12, hasClobbers: true, KernelClobberEncoding.X64);

    /// <summary>
    /// x86-64, 4.20 until the records got padding of their own (between 5.10 and 6.1): 16 bytes, the last may end after 10 or 12. The
    /// clobber word is still in the records of C code but the kernel no longer reads it.
    /// </summary>
    public static ParaInstructionsFormat X64Since420 { get; } =
        new("x86-64-4.20", 64, 16, 10, hasClobbers: false, KernelClobberEncoding.X64);

    /// <summary>x86-64 as 6.1 to 6.7 write it: 16 bytes, every record padded.</summary>
    public static ParaInstructionsFormat X64Since61 { get; } =
        new("x86-64-6.1", 64, 16, 16, hasClobbers: false, KernelClobberEncoding.X64);

    /// <summary>Every layout known.</summary>
    public static IReadOnlyList<ParaInstructionsFormat> All { get; } =
        [I386Before2630, I386, X64Before2630, X64, X64Since420, X64Since61];

    /// <summary>The layout's name.</summary>
    public string Name { get; }

    /// <summary>32 or 64: the size of the address field in bits.</summary>
    public int Bitness { get; }

    /// <summary>Distance in bytes from one record to the next.</summary>
    public int Stride { get; }

    /// <summary>The fewest bytes the last record may have.</summary>
    public int ShortestLastRecord { get; }

    /// <summary>
    /// Whether the kernel of this layout reads the clobber word. Where it does not, the word is decoded all the same if it is there.
    /// </summary>
    public bool HasClobbers { get; }

    /// <summary>Meaning of the bits of the clobber word.</summary>
    internal KernelClobberEncoding Clobbers { get; }

    /// <summary>
    /// The registers a clobber word stands for. Bits that the era does not define are ignored; the flags are always in the set.
    /// </summary>
    /// <param name="word">The clobber word of a record.</param>
    /// <returns>What the patch of that site may destroy.</returns>
    public RegisterSet DecodeClobbers(ushort word) => Clobbers.Decode(word);

    /// <summary>The clobber word for a set of registers. Registers that the era has no bit for are left out.</summary>
    /// <param name="clobbers">What the patch of the site may destroy.</param>
    /// <returns>The clobber word.</returns>
    public ushort EncodeClobbers(RegisterSet clobbers) => Clobbers.Encode(clobbers);

    /// <summary>How many records a table of some size has.</summary>
    /// <param name="size">The section's size in bytes.</param>
    /// <param name="count">The number of records, the short last one included.</param>
    /// <returns>Whether the size fits this layout.</returns>
    public bool TryGetCount(int size, out int count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(size);
        int rest = size % Stride;
        count = size / Stride + (rest == 0 ? 0 : 1);
        return rest == 0 || rest >= ShortestLastRecord;
    }

    /// <summary>Reads a table; see <see cref="TryRead"/>.</summary>
    /// <param name="section">The section's bytes.</param>
    /// <param name="fileOffset">Where the section begins in its file, for the message.</param>
    /// <returns>The records in table order.</returns>
    /// <exception cref="PatchException">The size does not fit the stride.</exception>
    public ParaInstruction[] Read(ReadOnlySpan<byte> section, long? fileOffset = null) =>
        TryRead(section, out ParaInstruction[]? records, out PatchDiagnostic? error, fileOffset)
            ? records : throw new PatchException(error);

    /// <summary>Reads a table.</summary>
    /// <param name="section">The section's bytes.</param>
    /// <param name="records">The records in table order.</param>
    /// <param name="error">Why there are none: the size does not fit the stride.</param>
    /// <param name="fileOffset">Where the section begins in its file, for the message.</param>
    /// <returns>Whether the table was read.</returns>
    public bool TryRead(
        ReadOnlySpan<byte> section, [NotNullWhen(true)] out ParaInstruction[]? records, [NotNullWhen(false)] out PatchDiagnostic? error,
        long? fileOffset = null)
    {
        if (!TryGetCount(section.Length, out int count))
        {
            records = null;
            error = PatchDiagnostic.Error(DiagnosticCodes.TableStride, $"the site table does not consist of {Name} records") with
            {
                FileOffset = fileOffset,
                Found = $"{section.Length} bytes, {section.Length % Stride} of them behind the last whole record",
                Expected =
                    $"a multiple of {Stride}"
                        + $"{(ShortestLastRecord < Stride ? $", or a last record of at least {ShortestLastRecord} bytes" : "")}",
                Help = "The table is cut off or of another kernel era.",
            };
            return false;
        }

        records = new ParaInstruction[count];
        for (int i = 0; i < count; i++)
        {
            records[i] = ReadRecord(section[(i * Stride)..]);
        }

        error = null;
        return true;
    }

    /// <summary>Size in bytes of a table as <see cref="Write"/> writes it.</summary>
    /// <param name="count">How many records.</param>
    /// <param name="shortLast">Whether the last record ends after <see cref="ShortestLastRecord"/> bytes.</param>
    /// <returns>The size.</returns>
    public int GetSize(int count, bool shortLast = false)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        return count == 0 ? 0 : checked((count - 1) * Stride) + (shortLast ? ShortestLastRecord : Stride);
    }

    /// <summary>Writes a table; padding is zero.</summary>
    /// <param name="records">The records.</param>
    /// <param name="section">
    /// Where to: as many bytes as <see cref="GetSize"/> says, or fewer as long as the last record has <see cref="ShortestLastRecord"/>.
    /// </param>
    /// <exception cref="ArgumentException">The span has another size, or an address does not fit a 32-bit record.</exception>
    public void Write(ReadOnlySpan<ParaInstruction> records, Span<byte> section)
    {
        if (section.Length < GetSize(records.Length, shortLast: true) || section.Length > GetSize(records.Length))
        {
            throw new ArgumentException(
                $"{records.Length} {Name} records take {GetSize(records.Length)} bytes, not {section.Length}", nameof(section));
        }

        section.Clear();
        for (int i = 0; i < records.Length; i++)
        {
            WriteRecord(records[i], section[(i * Stride)..]);
        }
    }

    /// <inheritdoc/>
    public override string ToString() => Name;

    private ParaInstruction ReadRecord(ReadOnlySpan<byte> record)
    {
        ulong address = Bitness == 64 ? BinaryPrimitives.ReadUInt64LittleEndian(record) : BinaryPrimitives.ReadUInt32LittleEndian(record);
        ReadOnlySpan<byte> rest = record[_addressSize..];
        ushort clobbers = rest.Length >= 4 ? BinaryPrimitives.ReadUInt16LittleEndian(rest[2..]) : (ushort)0;
        return new ParaInstruction(address, rest[0], rest[1], clobbers);
    }

    private void WriteRecord(in ParaInstruction record, Span<byte> to)
    {
        if (Bitness == 64)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(to, record.Address.Value);
        }
        else if (record.Address.Value <= uint.MaxValue)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(to, (uint)record.Address.Value);
        }
        else
        {
            throw new ArgumentException($"the address {record.Address} does not fit a record of {Name}", nameof(record));
        }

        Span<byte> rest = to[_addressSize..];
        rest[0] = record.Type;
        rest[1] = record.Length;
        if (rest.Length >= 4)
        {
            BinaryPrimitives.WriteUInt16LittleEndian(rest[2..], record.Clobbers);
        }
    }
}

/// <summary>One record of a <c>.parainstructions</c> table, as stored.</summary>
/// <param name="Address">Run address of the site's first byte (the field <c>instr</c>).</param>
/// <param name="Type">The slot's number (the field <c>type</c> or <c>instrtype</c>).</param>
/// <param name="Length">The site's length in bytes (the field <c>len</c>).</param>
/// <param name="Clobbers">The clobber word; 0 where the record has none.</param>
public readonly record struct ParaInstruction(VirtualAddress Address, byte Type, byte Length, ushort Clobbers)
{
    /// <summary>The site this record describes.</summary>
    /// <param name="format">The table's layout, which tells what the clobber word means.</param>
    /// <returns>The site; its length is not checked yet (<see cref="SiteTable"/> does).</returns>
    public PatchSite ToSite(ParaInstructionsFormat format)
    {
        ArgumentNullException.ThrowIfNull(format);
        return new PatchSite(Address, Type, Length, format.DecodeClobbers(Clobbers));
    }
}
