using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

/// <summary>A guest in an Intel trust domain: it asks the TDX module to halt. All else is as without TDX on the same host.</summary>
internal static class TdxBackend
{
    /// <summary>The backend's name.</summary>
    public const string Name = "tdx";

    /// <summary>Makes the TDX backend for any layout that has (some of) the standard slot names.</summary>
    /// <param name="layout">The layout.</param>
    /// <param name="bitness">32 or 64: what code the sites are in.</param>
    /// <param name="targets">Where the functions are, those of TDX (<c>tdx_…</c>), those of KVM on a KVM host and the native ones.</param>
    /// <param name="options">What the host is; <see langword="null"/> for none that the kernel knows.</param>
    /// <param name="native">What kernels disagree on about the native backend; <see langword="null"/> for what fits the layout.</param>
    /// <returns>
    /// The backend. Those of the two slots that the layout has stay as they are where one of their functions is not known: kernels before <c>tdx_halt</c> chose
    /// another idle routine and left the slots alone.
    /// </returns>
    /// <exception cref="ArgumentOutOfRangeException">The bitness is neither 32 nor 64.</exception>
    public static Backend Create(
        OpsLayout layout, int bitness, SlotTargets targets, TdxOptions? options = null, NativeOptions? native = null)
    {
        Backend host = options?.Kvm is KvmOptions kvm
            ? KvmBackend.Create(layout, bitness, targets, kvm, native)
            : NativeBackend.Create(layout, bitness, targets, native);
        return host.Derive(Name, b =>
            new SlotChanges(new PvSlots(layout), targets, b).PutAll(("irq.safe_halt", "tdx_safe_halt"), ("irq.halt", "tdx_halt")));
    }
}

/// <summary>What decides which slots a TDX guest changes. The defaults are a guest on no hypervisor that the kernel knows.</summary>
public sealed record TdxOptions
{
    /// <summary>What the host is as KVM; <see langword="null"/> for another one. A TDX guest on KVM is a KVM guest too.</summary>
    public KvmOptions? Kvm { get; init; }
}
