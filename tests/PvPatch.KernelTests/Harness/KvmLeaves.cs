namespace PvPatch.KernelTests.Harness;

/// <summary>KVM's leaves (Documentation/virt/kvm/x86/cpuid.rst).</summary>
internal static class KvmLeaves
{
    private const uint FeatureLeaf = 0x4000_0001;

    /// <param name="features">EAX of the feature leaf.</param>
    public static Dictionary<uint, CpuidAnswer> Make(uint features) => new()
    {
        [CpuidAnswer.SignatureLeaf] = CpuidAnswer.Signature(FeatureLeaf, "KVMKVMKVM\0\0\0"u8),
        [FeatureLeaf] = new CpuidAnswer(features, 0, 0, 0),
    };
}
