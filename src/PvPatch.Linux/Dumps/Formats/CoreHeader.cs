using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Dumps;

/// <summary>
/// The header of an ELF core: class, machine, and where its program headers are. Cores are read apart from <see cref="ElfImage"/>: they
/// are many times larger than memory, have no sections, and are of use when they are cut short.
/// </summary>
internal sealed class CoreHeader
{
    // The most headers seen are those of a dump through page tables: one for each run of pages.
    public const ulong MaxSegments = 4 << 20;

    private const int TypeCore = 4;
    private const int ExtendedCount = 0xffff; // PN_XNUM: the number is in the info field of section header 0

    public required bool Is64 { get; init; }

    /// <summary>
    /// 32 or 64: the bitness of the machine, not of the file. Cores of 32-bit machines with much memory are 64-bit files.
    /// </summary>
    public required int MachineBitness { get; init; }

    public required long SegmentTableOffset { get; init; }

    public required int SegmentCount { get; init; }

    public int SegmentEntrySize => Is64 ? 56 : 32;

    /// <summary>Offset of the section headers, not checked against the file; 0 where there are none.</summary>
    public required ulong SectionTableOffset { get; init; }

    /// <summary>Index of the section header of the names of sections.</summary>
    public required int NamesIndex { get; init; }

    public static bool TryRead(
        MemorySource source, [NotNullWhen(true)] out CoreHeader? header, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        header = null;
        Span<byte> bytes = stackalloc byte[64];
        bytes.Clear();
        int length = (int)Math.Min(source.Length, bytes.Length);
        if (!source.TryRead(0, bytes[..length]))
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.MemoryUnreadable, "the start of the file cannot be read");
            return false;
        }

        bool is64 = bytes[4] == 2;
        if (length < (is64 ? 64 : 52))
        {
            error = Bad(length, "the file ends inside the ELF header", $"{length} bytes", $"at least {(is64 ? 64 : 52)}");
            return false;
        }

        var fields = new ElfFields(bytes, is64);
        ushort machine = fields.Half(18, 18);
        if (bytes[4] is not (1 or 2) || bytes[5] != 1 || machine is not ((ushort)ElfMachine.I386 or (ushort)ElfMachine.X86X64))
        {
            error = Bad(4, "the core is not of an x86 machine", $"class {bytes[4]}, byte order {bytes[5]}, machine {machine}",
                "class 1 or 2, byte order 1, machine 3 (i386) or 62 (x86-64)");
            return false;
        }

        if (fields.Half(16, 16) != TypeCore)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.MemoryNotACore, "the ELF file is no core") with
            {
                FileOffset = 16,
                Found = string.Create(CultureInfo.InvariantCulture, $"type {fields.Half(16, 16)}"),
                Expected = "type 4 (CORE)",
                Help = "Give a memory dump, not a kernel image; for raw memory give the address of its first byte (--base).",
            };
            return false;
        }

        return TryReadTable(source, fields, is64, machine == (ushort)ElfMachine.X86X64 ? 64 : 32, out header, out error);
    }

    private static bool TryReadTable(MemorySource source, ElfFields fields, bool is64, int bitness,
        [NotNullWhen(true)] out CoreHeader? header, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        header = null;
        ulong table = fields.Native(28, 32);
        ulong count = fields.Half(44, 56);
        int entrySize = is64 ? 56 : 32;
        if (fields.Half(42, 54) != entrySize && count != 0)
        {
            error = Bad(is64 ? 54 : 42, "the size of a program header (e_phentsize) is wrong", $"{fields.Half(42, 54)}", $"{entrySize}");
            return false;
        }

        if (count == ExtendedCount && !TryReadExtendedCount(source, fields.Native(32, 40), is64, ref count))
        {
            error = Bad(is64 ? 40 : 32, "the number of program headers is in a section header that cannot be read",
                FileRange.Hex(fields.Native(32, 40)), "the offset of section header 0");
            return false;
        }

        if (count > MaxSegments || !FileRange.Fits(table, count * (ulong)entrySize, source.Length))
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.CoreBadTable, "the program headers of the core lie outside the file, or are too many") with
            {
                FileOffset = is64 ? 32 : 28,
                Found = $"{count} headers at {FileRange.Hex(table)}",
                Expected = $"at most {MaxSegments} headers within {FileRange.Hex((ulong)source.Length)} bytes",
                Help = "The core is cut short or its header is damaged; take the dump again.",
            };
            return false;
        }

        header = new CoreHeader
        {
            Is64 = is64,
            MachineBitness = bitness,
            SegmentTableOffset = (long)table,
            SegmentCount = (int)count,
            SectionTableOffset = fields.Native(32, 40),
            NamesIndex = fields.Half(50, 62),
        };
        error = null;
        return true;
    }

    private static bool TryReadExtendedCount(MemorySource source, ulong sections, bool is64, ref ulong count)
    {
        Span<byte> record = stackalloc byte[64];
        record = record[..(is64 ? 64 : 40)];
        if (sections == 0 || !FileRange.Fits(sections, (ulong)record.Length, source.Length) || !source.TryRead((long)sections, record))
        {
            return false;
        }

        count = new ElfFields(record, is64).Word(28, 44);
        return true;
    }

    private static PatchDiagnostic Bad(long offset, string message, string found, string expected) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.CoreBadHeader, message) with
        {
            FileOffset = offset,
            Found = found,
            Expected = expected,
            Help = "The core is damaged; take the dump again.",
        };
}
