using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Modules;

/// <summary>
/// Copies a module's file with addresses in its section headers, as a linker would have written them; relocations are not applied. The
/// readers and planners of kernels take the copy as well.
/// </summary>
internal static class PlacedElf
{
    // Elf32_Shdr and Elf64_Shdr: sh_flags at 8 in both, sh_addr behind it.
    private const int FlagsOffset = 8;
    private const int AddressOffset32 = 12;
    private const int AddressOffset64 = 16;
    private const int TypeOffset = 16; // e_type

    /// <summary>Makes the copy. Sections that are not loaded lose the flag SHF_ALLOC, as they have no address.</summary>
    /// <param name="module">The module.</param>
    /// <param name="addresses">The address of each section, by its index.</param>
    /// <param name="placed">The copy.</param>
    /// <param name="error">PV6018: loaded sections share bytes of the file.</param>
    public static bool TryMake(
        ElfImage module, ReadOnlySpan<VirtualAddress?> addresses, [NotNullWhen(true)] out ElfImage? placed,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        placed = null;
        byte[] file = module.File.ToArray();
        if (!ElfHeader.TryRead(file, out ElfHeader? header, out error))
        {
            return false;
        }

        BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(TypeOffset), (ushort)ElfFileType.Executable);
        for (int i = 0; i < addresses.Length; i++)
        {
            Span<byte> record = file.AsSpan(
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

        return ElfImage.TryRead(file, out placed, out error);
    }
}
