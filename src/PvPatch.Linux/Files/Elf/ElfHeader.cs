using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>The ELF file header, with the file's type checked but not its tables.</summary>
internal sealed class ElfHeader
{
    private const int HeaderSize32 = 52;
    private const int HeaderSize64 = 64;

    public required bool Is64 { get; init; }

    public required ElfFileType Type { get; init; }

    public required ElfMachine Machine { get; init; }

    public required ulong Entry { get; init; }

    public required ulong SegmentTableOffset { get; init; }

    public required ushort SegmentEntrySize { get; init; }

    public required ushort SegmentCount { get; init; }

    public required ulong SectionTableOffset { get; init; }

    public required ushort SectionEntrySize { get; init; }

    public required ushort SectionCount { get; init; }

    public required ushort NamesIndex { get; init; }

    public int Bitness => Is64 ? 64 : 32;

    public int Size => Is64 ? HeaderSize64 : HeaderSize32;

    public int ExpectedSectionEntrySize => Is64 ? 64 : 40;

    public int ExpectedSegmentEntrySize => Is64 ? 56 : 32;

    public static bool HasMagic(ReadOnlySpan<byte> file) => file.StartsWith("\u007fELF"u8);

    public static bool TryRead(
        ReadOnlySpan<byte> file, [NotNullWhen(true)] out ElfHeader? header, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        header = null;
        if (!HasMagic(file))
        {
            error = NotSupported(0, "The file does not start with the ELF magic number", FileRange.FirstBytes(file), "7f 45 4c 46");
            return false;
        }

        // e_ident is 16 bytes long: class at 4, byte order at 5, version at 6.
        int needed = file.Length > 4 && file[4] == 2 ? HeaderSize64 : HeaderSize32;
        if (file.Length < needed)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.ElfTruncated, "The file ends inside the ELF header") with
            {
                FileOffset = file.Length,
                Found = $"{file.Length} bytes",
                Expected = $"at least {needed} bytes",
                Help = "The file is cut short; copy or download it again",
            };
            return false;
        }

        if (file[4] is not (1 or 2))
        {
            error = NotSupported(4, "The ELF class is unknown", $"{file[4]}", "1 (32-bit) or 2 (64-bit)");
            return false;
        }

        if (file[5] != 1)
        {
            error = NotSupported(5, "The ELF file is not little-endian, so it is not for x86", $"{file[5]}", "1");
            return false;
        }

        return TryReadFields(file, file[4] == 2, out header, out error);
    }

    private static bool TryReadFields(
        ReadOnlySpan<byte> file, bool is64, [NotNullWhen(true)] out ElfHeader? header, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        header = null;
        ushort type = BinaryPrimitives.ReadUInt16LittleEndian(file[16..]);
        ushort machine = BinaryPrimitives.ReadUInt16LittleEndian(file[18..]);
        uint version = BinaryPrimitives.ReadUInt32LittleEndian(file[20..]);
        if (version != 1)
        {
            error = NotSupported(20, "The ELF version is unknown", $"{version}", "1");
            return false;
        }

        // The two x86 machines go with one class each; 32-bit files for x86-64 (the x32 ABI) are no kernels.
        ElfMachine expected = is64 ? ElfMachine.X86X64 : ElfMachine.I386;
        if (machine != (ushort)expected)
        {
            error = NotSupported(
                18,
                $"The {(is64 ? 64 : 32)}-bit ELF file is for another machine",
                $"machine {machine}",
                $"{(int)expected} ({(is64 ? "x86-64" : "i386")})");
            return false;
        }

        if (type is not ((ushort)ElfFileType.Relocatable or (ushort)ElfFileType.Executable or (ushort)ElfFileType.SharedObject))
        {
            error = NotSupported(16, "The ELF file is of a type that is not read here", $"type {type}", "1 (REL), 2 (EXEC) or 3 (DYN)");
            return false;
        }

        var fields = new ElfFields(file, is64);
        header = new ElfHeader
        {
            Is64 = is64,
            Type = (ElfFileType)type,
            Machine = expected,
            Entry = fields.Native(24, 24),
            SegmentTableOffset = fields.Native(28, 32),
            SectionTableOffset = fields.Native(32, 40),
            SegmentEntrySize = fields.Half(42, 54),
            SegmentCount = fields.Half(44, 56),
            SectionEntrySize = fields.Half(46, 58),
            SectionCount = fields.Half(48, 60),
            NamesIndex = fields.Half(50, 62),
        };
        error = null;
        return true;
    }

    private static PatchDiagnostic NotSupported(long offset, string message, string found, string expected) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.ElfNotSupported, message) with
        {
            FileOffset = offset,
            Found = found,
            Expected = expected,
            Help = "Give an ELF file for x86-64 or i386, such as a vmlinux",
        };
}
