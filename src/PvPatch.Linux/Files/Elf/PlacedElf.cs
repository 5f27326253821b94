using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>
/// Makes of a relocatable file one as a linker would have written it for its addresses, but for the relocations: a copy with addresses in
/// its section headers. All that reads and plans linked files reads and plans this too.
/// </summary>
internal static class PlacedElf
{
    // Elf32_Shdr and Elf64_Shdr: sh_flags at 8 in both, sh_addr behind it.
    private const int FlagsOffset = 8;
    private const int AddressOffset32 = 12;
    private const int AddressOffset64 = 16;
    private const int TypeOffset = 16; // e_type

    /// <summary>Makes the copy. What is not loaded loses its mark of being so, as it has no address.</summary>
    /// <param name="file">The relocatable file.</param>
    /// <param name="addresses">The address of each section, by its index.</param>
    /// <param name="placed">The copy.</param>
    /// <param name="error">PV6018: loaded sections share bytes of the file.</param>
    public static bool TryMake(
        ElfImage file, ReadOnlySpan<VirtualAddress?> addresses, [NotNullWhen(true)] out ElfImage? placed,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        placed = null;
        byte[] copy = file.File.ToArray();
        if (!ElfHeader.TryRead(copy, out ElfHeader? header, out error))
        {
            return false;
        }

        BinaryPrimitives.WriteUInt16LittleEndian(copy.AsSpan(TypeOffset), (ushort)ElfFileType.Executable);
        for (int i = 0; i < addresses.Length; i++)
        {
            Span<byte> record = copy.AsSpan(
                (int)header.SectionTableOffset + (i * header.ExpectedSectionEntrySize), header.ExpectedSectionEntrySize);
            if (addresses[i] is not VirtualAddress address)
            {
                record[FlagsOffset] = (byte)(record[FlagsOffset] & ~(byte)ElfSectionAttributes.Alloc);
            }
            else if (header.Is64)
            {
                BinaryPrimitives.WriteUInt64LittleEndian(record[AddressOffset64..], address.Value);
            }
            else
            {
                BinaryPrimitives.WriteUInt32LittleEndian(record[AddressOffset32..], (uint)address.Value);
            }
        }

        return ElfImage.TryRead(copy, out placed, out error);
    }
}
