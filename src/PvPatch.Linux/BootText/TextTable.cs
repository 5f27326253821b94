using System.Buffers.Binary;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.BootText;

/// <summary>A table of records that the kernel's own patchers walk.</summary>
internal enum TextTableKind
{
    /// <summary>16 bytes: s32 code, s32 target, s64 key.</summary>
    JumpLabels,

    /// <summary>8 bytes: s32 site, s32 key.</summary>
    StaticCalls,

    /// <summary>8 bytes: s32 trampoline, s32 key.</summary>
    StaticCallKeys,

    /// <summary>8 bytes: absolute address.</summary>
    Ftrace,

    /// <summary>s32.</summary>
    SmpLocks,

    /// <summary>s32.</summary>
    EndbrSeals,

    /// <summary>s32.</summary>
    Retpolines,

    /// <summary>s32.</summary>
    Returns,

    /// <summary>s32.</summary>
    Calls,
}

/// <summary>The bytes of one table and where they are.</summary>
/// <param name="Address">Link address of the first byte.</param>
/// <param name="Bytes">The bytes; empty for a table that the kernel does not have.</param>
internal readonly record struct TextTable(VirtualAddress Address, ReadOnlyMemory<byte> Bytes)
{
    /// <summary>The one place where tables are found: by section header, or by the symbols at both ends.</summary>
    private static readonly (string Section, string Start, string Stop, int Stride)[] s_places =
    [
        ("__jump_table", "__start___jump_table", "__stop___jump_table", 16),
        (".static_call_sites", "__start_static_call_sites", "__stop_static_call_sites", 8),
        (".static_call_tramp_key", "__start_static_call_tramp_key", "__stop_static_call_tramp_key", 8),
        ("__mcount_loc", "__start_mcount_loc", "__stop_mcount_loc", 8),
        (".smp_locks", "__smp_locks", "__smp_locks_end", 4),
        (".ibt_endbr_seal", "__ibt_endbr_seal", "__ibt_endbr_seal_end", 4),
        (".retpoline_sites", "__retpoline_sites", "__retpoline_sites_end", 4),
        (".return_sites", "__return_sites", "__return_sites_end", 4),
        (".call_sites", "__call_sites", "__call_sites_end", 4),
    ];

    /// <summary>Finds a table; a part of a last record counts for nothing.</summary>
    /// <param name="kernel">The kernel.</param>
    /// <param name="kind">Which one.</param>
    /// <returns>The table; an empty one where the kernel has none, or its symbols do not bound bytes of the file.</returns>
    public static TextTable Find(TextKernel kernel, TextTableKind kind)
    {
        (string name, string startName, string stopName, int stride) = s_places[(int)kind];
        if (kernel.Elf.TryGetSection(name, out ElfSection? section) && section.IsAllocated && section.HasFileContent)
        {
            return new TextTable(section.Address, Whole(kernel.Elf.GetBytes(section), stride));
        }

        return kernel.Symbol(startName) is VirtualAddress start && kernel.Symbol(stopName) is VirtualAddress stop
            && stop > start && stop.Value - start.Value <= int.MaxValue
            && kernel.Elf.TryGetBytes(start, (int)(stop.Value - start.Value), out Memory<byte> bytes)
            ? new TextTable(start, Whole(bytes, stride)) : default;
    }

    /// <summary>The table in a section of its own, of s32 distances; empty where there is no such section.</summary>
    public static TextTable OfSection(TextKernel kernel, string name) =>
        kernel.Elf.TryGetSection(name, out ElfSection? section) && section.IsAllocated && section.HasFileContent
            ? new TextTable(section.Address, Whole(kernel.Elf.GetBytes(section), sizeof(int))) : default;

    /// <summary>The number of records of a size.</summary>
    public int CountOf(int stride) => Bytes.Length / stride;

    /// <summary>The address that an s32 field names, relative to itself.</summary>
    /// <param name="offset">The field's offset in the table.</param>
    public VirtualAddress Relative(int offset) => Address + offset + BinaryPrimitives.ReadInt32LittleEndian(Bytes.Span[offset..]);

    /// <summary>The address that an s64 field names, relative to itself.</summary>
    /// <param name="offset">The field's offset in the table.</param>
    public VirtualAddress Relative64(int offset) => Address + offset + BinaryPrimitives.ReadInt64LittleEndian(Bytes.Span[offset..]);

    /// <summary>The 64-bit value of a field.</summary>
    /// <param name="offset">The field's offset in the table.</param>
    public ulong Value64(int offset) => BinaryPrimitives.ReadUInt64LittleEndian(Bytes.Span[offset..]);

    private static ReadOnlyMemory<byte> Whole(ReadOnlyMemory<byte> bytes, int stride) => bytes[..(bytes.Length / stride * stride)];
}
