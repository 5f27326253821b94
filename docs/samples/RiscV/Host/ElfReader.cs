using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;

namespace RiscV.Host;

/// <summary>
/// Reads statically linked ELF64 programs for RISC-V: header and loadable segments, nothing else. The file is not trusted: every offset and
/// size is checked against the file and against the guest's 32-bit window before it is used.
/// </summary>
internal static class ElfReader
{
    private const int HeaderSize = 64;
    private const int ProgramHeaderSize = 56;
    private const ushort MachineRiscV = 243;
    private const ushort TypeExecutable = 2;
    private const uint TypeLoad = 1;
    private const uint FlagExecutable = 1;
    private const uint FlagCompressed = 1;  // e_flags: EF_RISCV_RVC
    private const ulong WindowEnd = 1UL << 32;

    /// <summary>Reads a program, or says what is wrong with it.</summary>
    public static bool TryRead(ReadOnlyMemory<byte> file, [NotNullWhen(true)] out GuestImage? image, [NotNullWhen(false)] out string? error)
    {
        image = null;
        ReadOnlySpan<byte> bytes = file.Span;
        error = CheckHeader(bytes);
        if (error is not null)
        {
            return false;
        }

        ulong table = U64(bytes, 32);
        int entrySize = U16(bytes, 54);
        int count = U16(bytes, 56);
        if (entrySize != ProgramHeaderSize || table > (ulong)bytes.Length
            || (ulong)(count * ProgramHeaderSize) > (ulong)bytes.Length - table)
        {
            error = "the program headers lie outside the file";
            return false;
        }

        var segments = new List<GuestSegment>();
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> header = bytes.Slice((int)table + i * ProgramHeaderSize, ProgramHeaderSize);
            if (U32(header, 0) == TypeLoad && U64(header, 40) > 0)
            {
                if (!TryReadSegment(file, header, out GuestSegment? segment))
                {
                    error = $"program header {i} describes bytes outside the file or the guest's 4 GiB";
                    return false;
                }

                segments.Add(segment);
            }
        }

        if (!segments.Exists(static s => s.Executable))
        {
            error = "there is no executable segment";
            return false;
        }

        image = new GuestImage(U64(bytes, 24), segments);
        return true;
    }

    private static string? CheckHeader(ReadOnlySpan<byte> bytes) =>
        bytes.Length < HeaderSize || !bytes[..4].SequenceEqual("\u007fELF"u8) ? "not an ELF file"
        : bytes[4] != 2 || bytes[5] != 1 ? "not a 64-bit little-endian ELF file"
        : U16(bytes, 18) != MachineRiscV ? "not a program for RISC-V"
        : U16(bytes, 16) != TypeExecutable ? "not a statically linked program"
        : (U32(bytes, 48) & FlagCompressed) != 0 ? "the program has compressed instructions; build it with -march=rv64im"
        : null;

    private static bool TryReadSegment(ReadOnlyMemory<byte> file, ReadOnlySpan<byte> header, [NotNullWhen(true)] out GuestSegment? segment)
    {
        ulong offset = U64(header, 8);
        ulong address = U64(header, 16);
        ulong inFile = U64(header, 32);
        ulong inMemory = U64(header, 40);
        segment = null;
        if (offset > (ulong)file.Length || inFile > (ulong)file.Length - offset || inFile > inMemory || address > WindowEnd
            || inMemory > WindowEnd - address)
        {
            return false;
        }

        segment = new GuestSegment(address, file.Slice((int)offset, (int)inFile), inMemory, (U32(header, 4) & FlagExecutable) != 0);
        return true;
    }

    private static ushort U16(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt16LittleEndian(bytes[at..]);

    private static uint U32(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[at..]);

    private static ulong U64(ReadOnlySpan<byte> bytes, int at) => BinaryPrimitives.ReadUInt64LittleEndian(bytes[at..]);
}
