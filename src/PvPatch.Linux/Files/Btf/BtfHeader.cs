using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>The ranges of types and strings in BTF data, checked against its length and each other.</summary>
/// <param name="Types">The range of the types.</param>
/// <param name="Strings">The range of the strings, which end with NUL.</param>
internal readonly record struct BtfHeader(Range Types, Range Strings)
{
    private const ushort Magic = 0xeb9f;
    private const int MinHeaderSize = 24;

    public static bool TryRead(ReadOnlySpan<byte> btf, out BtfHeader header, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        header = default;

        // magic u16, version u8, flags u8, header length u32, then offset and length of types and strings, each u32 and
        // counted from the end of the header.
        if (btf.Length < MinHeaderSize || BinaryPrimitives.ReadUInt16LittleEndian(btf) != Magic || btf[2] != 1)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.BtfBadHeader, "The data does not start with a BTF header") with
            {
                FileOffset = 0,
                Found = FileRange.FirstBytes(btf[..Math.Min(btf.Length, 8)]),
                Expected = "9f eb 01 and 24 bytes at least",
                Help = "Only little-endian BTF of version 1 is read; take the section .BTF of a vmlinux",
            };
            return false;
        }

        uint headerLength = BinaryPrimitives.ReadUInt32LittleEndian(btf[4..]);
        if (headerLength < MinHeaderSize || headerLength > (uint)btf.Length)
        {
            error = Outside("header", 4, 0, headerLength, btf.Length);
            return false;
        }

        ulong typeOffset = headerLength + (ulong)BinaryPrimitives.ReadUInt32LittleEndian(btf[8..]);
        uint typeLength = BinaryPrimitives.ReadUInt32LittleEndian(btf[12..]);
        ulong stringOffset = headerLength + (ulong)BinaryPrimitives.ReadUInt32LittleEndian(btf[16..]);
        uint stringLength = BinaryPrimitives.ReadUInt32LittleEndian(btf[20..]);
        if (!FileRange.Fits(typeOffset, typeLength, btf.Length))
        {
            error = Outside("types", 8, typeOffset, typeLength, btf.Length);
            return false;
        }

        if (!FileRange.Fits(stringOffset, stringLength, btf.Length))
        {
            error = Outside("strings", 16, stringOffset, stringLength, btf.Length);
            return false;
        }

        if (typeOffset < stringOffset + stringLength && stringOffset < typeOffset + typeLength)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.BtfPartOutsideData, "Types and strings of the BTF data share bytes") with
            {
                FileOffset = 8,
                Found = $"{FileRange.Describe(typeOffset, typeLength)} and {FileRange.Describe(stringOffset, stringLength)}",
                Expected = "two ranges apart from each other",
                Help = "The section is damaged; take the original file again",
            };
            return false;
        }

        error = null;
        if (stringLength != 0 && btf[(int)(stringOffset + stringLength) - 1] != 0)
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.BtfPartOutsideData, "The strings of the BTF data are not NUL-terminated") with
            {
                FileOffset = (long)(stringOffset + stringLength) - 1,
                Help = "The section is damaged; take the original file again",
            };
            return false;
        }

        header = new BtfHeader((int)typeOffset..(int)(typeOffset + typeLength), (int)stringOffset..(int)(stringOffset + stringLength));
        return true;
    }

    private static PatchDiagnostic Outside(string what, long at, ulong offset, ulong length, int dataLength) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.BtfPartOutsideData, $"The {what} of the BTF data lie outside of it") with
        {
            FileOffset = at,
            Found = FileRange.Describe(offset, length),
            Expected = $"a range within {FileRange.Hex((ulong)dataLength)} bytes",
            Help = "The section is cut short or damaged; take the original file again",
        };
}
