namespace PvPatch.Paravirt;

/// <summary>What decides which slots a TDX guest changes. The defaults are a guest on no hypervisor that the kernel knows.</summary>
public sealed record TdxOptions
{
    /// <summary>What the host is as KVM; <see langword="null"/> for another one. A TDX guest on KVM is a KVM guest too.</summary>
    public KvmOptions? Kvm { get; init; }
}
