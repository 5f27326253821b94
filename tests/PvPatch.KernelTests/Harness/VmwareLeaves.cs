namespace PvPatch.KernelTests.Harness;

/// <summary>VMware's leaves.</summary>
internal static class VmwareLeaves
{
    /// <summary>Its ECX tells of ways other than the port to reach the backdoor: none.</summary>
    private const uint Last = 0x4000_0010;

    public static Dictionary<uint, CpuidAnswer> Make() => new()
    {
        [CpuidAnswer.SignatureLeaf] = CpuidAnswer.Signature(Last, "VMwareVMware"u8),
        [Last] = default,
    };
}
