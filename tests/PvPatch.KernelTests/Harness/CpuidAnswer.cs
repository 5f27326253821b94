using System.Buffers.Binary;

namespace PvPatch.KernelTests.Harness;

/// <summary>What CPUID leaves in its registers.</summary>
internal readonly record struct CpuidAnswer(uint Eax, uint Ebx, uint Ecx, uint Edx)
{
    /// <summary>The leaf in which every hypervisor says its name, and up to which leaf it answers.</summary>
    public const uint SignatureLeaf = 0x4000_0000;

    /// <summary>An answer with a name of twelve letters in ebx, ecx, edx.</summary>
    public static CpuidAnswer Signature(uint eax, ReadOnlySpan<byte> name) =>
        new(
            eax,
            BinaryPrimitives.ReadUInt32LittleEndian(name),
            BinaryPrimitives.ReadUInt32LittleEndian(name[4..]),
            BinaryPrimitives.ReadUInt32LittleEndian(name[8..]));
}
