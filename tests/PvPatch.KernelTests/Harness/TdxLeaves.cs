namespace PvPatch.KernelTests.Harness;

/// <summary>The leaf of a trust domain (Intel TDX Module specification, CPUID virtualization).</summary>
internal static class TdxLeaves
{
    private const uint Leaf = 0x21;

    public static Dictionary<uint, CpuidAnswer> Make()
    {
        // The name lies in ebx, edx, ecx, other than that of hypervisors.
        CpuidAnswer name = CpuidAnswer.Signature(0, "IntelTDX    "u8);
        return new Dictionary<uint, CpuidAnswer> { [Leaf] = name with { Ecx = name.Edx, Edx = name.Ecx } };
    }
}
