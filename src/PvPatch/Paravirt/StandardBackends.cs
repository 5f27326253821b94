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

/// <summary>
/// The standard backends: for any layout that has (some of) the standard slot names, one read from a kernel image for example.
/// </summary>
/// <remarks>
/// Each of them throws <see cref="ArgumentOutOfRangeException"/> where the bitness is neither 32 nor 64, and
/// <see cref="ArgumentException"/> where its options are not possible.
/// </remarks>
public static class StandardBackends
{
    /// <summary>Bare hardware, named <c>native</c>.</summary>
    /// <param name="layout">The layout.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="targets">Addresses of the functions.</param>
    /// <param name="options">Options; the defaults where <see langword="null"/>.</param>
    /// <returns>The backend.</returns>
    public static Backend Native(OpsLayout layout, int bitness, SlotTargets targets, NativeOptions? options = null) =>
        NativeBackend.Create(layout, bitness, targets, options);

    /// <summary>A paravirtual guest of Xen, named <c>xen</c>.</summary>
    /// <inheritdoc cref="Native"/>
    public static Backend Xen(OpsLayout layout, int bitness, SlotTargets targets, XenOptions? options = null) =>
        XenBackend.Create(layout, bitness, targets, options);

    /// <summary>A guest of KVM, named <c>kvm</c>.</summary>
    /// <param name="layout">The layout.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="targets">Addresses of the functions.</param>
    /// <param name="options">Options; the defaults where <see langword="null"/>.</param>
    /// <param name="native">Options for what it takes from the native backend.</param>
    /// <returns>The backend.</returns>
    public static Backend Kvm(
        OpsLayout layout, int bitness, SlotTargets targets, KvmOptions? options = null, NativeOptions? native = null) =>
        KvmBackend.Create(layout, bitness, targets, options, native);

    /// <summary>A guest of Hyper-V, named <c>hyperv</c>.</summary>
    /// <inheritdoc cref="Kvm"/>
    public static Backend HyperV(
        OpsLayout layout, int bitness, SlotTargets targets, HyperVOptions? options = null, NativeOptions? native = null) =>
        HyperVBackend.Create(layout, bitness, targets, options, native);

    /// <summary>A guest of VMware, named <c>vmware</c>.</summary>
    /// <inheritdoc cref="Kvm"/>
    public static Backend Vmware(
        OpsLayout layout, int bitness, SlotTargets targets, VmwareOptions? options = null, NativeOptions? native = null) =>
        VmwareBackend.Create(layout, bitness, targets, options, native);

    /// <summary>A trust domain, named <c>tdx</c>.</summary>
    /// <inheritdoc cref="Kvm"/>
    public static Backend Tdx(
        OpsLayout layout, int bitness, SlotTargets targets, TdxOptions? options = null, NativeOptions? native = null) =>
        TdxBackend.Create(layout, bitness, targets, options, native);

    /// <summary>A guest of lguest, named <c>lguest</c>; 32-bit code only.</summary>
    /// <param name="layout">The layout.</param>
    /// <param name="targets">Addresses of the functions.</param>
    /// <param name="options">Options; the defaults where <see langword="null"/>.</param>
    /// <returns>The backend.</returns>
    public static Backend Lguest(OpsLayout layout, SlotTargets targets, LguestOptions? options = null) =>
        LguestBackend.Create(layout, targets, options);

    /// <summary>A guest with the VMI interface, named <c>vmi</c>; 32-bit code only.</summary>
    /// <inheritdoc cref="Lguest"/>
    public static Backend Vmi(OpsLayout layout, SlotTargets targets, VmiOptions? options = null) =>
        VmiBackend.Create(layout, targets, options);

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
