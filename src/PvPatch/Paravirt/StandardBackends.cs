using PvPatch.Mechanisms;

namespace PvPatch.Paravirt;

/// <summary>What the standard backends are made with.</summary>
public sealed record StandardBackendOptions
{
    /// <summary>For the native backend, and what KVM takes from it.</summary>
    public NativeOptions? Native { get; init; }

    /// <summary>For Xen.</summary>
    public XenOptions? Xen { get; init; }

    /// <summary>For KVM.</summary>
    public KvmOptions? Kvm { get; init; }

    /// <summary>For lguest.</summary>
    public LguestOptions? Lguest { get; init; }

    /// <summary>For VMI.</summary>
    public VmiOptions? Vmi { get; init; }
}

/// <summary>All standard backends at once.</summary>
public static class StandardBackends
{
    /// <summary>Makes a registry of the standard layout.</summary>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="targets">Where the functions are.</param>
    /// <param name="options">What the backends are made with.</param>
    /// <returns>A registry with native, xen and kvm; in 32-bit also lguest and vmi.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The bitness is neither 32 nor 64.</exception>
    /// <exception cref="ArgumentException">The options of a backend are not possible.</exception>
    public static OpsRegistry CreateRegistry(int bitness, SlotTargets targets, StandardBackendOptions? options = null) =>
        CreateRegistry(StandardLayout.For(bitness), bitness, targets, options);

    /// <summary>Makes a registry of any layout that has (some of) the standard slot names.</summary>
    /// <param name="layout">The layout, one read from a kernel image for example.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="targets">Where the functions are.</param>
    /// <param name="options">What the backends are made with.</param>
    /// <returns>A registry with native, xen and kvm; in 32-bit also lguest and vmi.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The bitness is neither 32 nor 64.</exception>
    /// <exception cref="ArgumentException">The options of a backend are not possible.</exception>
    public static OpsRegistry CreateRegistry(OpsLayout layout, int bitness, SlotTargets targets, StandardBackendOptions? options = null)
    {
        StandardLayout.CheckBitness(bitness);
        options ??= new StandardBackendOptions();
        var registry = new OpsRegistry(layout);
        registry.Add(NativeBackend.Create(layout, bitness, targets, options.Native));
        registry.Add(XenBackend.Create(layout, bitness, targets, options.Xen));
        registry.Add(KvmBackend.Create(layout, bitness, targets, options.Kvm, options.Native));
        if (bitness == 32)
        {
            registry.Add(LguestBackend.Create(layout, targets, options.Lguest));
            registry.Add(VmiBackend.Create(layout, targets, options.Vmi));
        }

        return registry;
    }
}
