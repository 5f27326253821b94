using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Text;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;

namespace PvPatch.Linux;

/// <summary>
/// Makes the backends of a kernel image: the content of its slots when its sites are patched, on each hypervisor or machine it can boot on.
/// </summary>
public static class KernelBackends
{
    /// <summary>Names of all known backends.</summary>
    public static IReadOnlyList<string> Names { get; } =
        [NativeBackend.Name, KvmBackend.Name, XenBackend.Name, HyperVBackend.Name, VmwareBackend.Name, TdxBackend.Name, LguestBackend.Name,
            VmiBackend.Name];

    // Two hypervisors were for 32-bit kernels only.
    private static readonly string[] s_only32 = [LguestBackend.Name, VmiBackend.Name];

    // What native kernels of 2.6.22 erase by number. The pmd slots are there with PAE only.
    private static readonly string[] s_conversions = ["pte_val", "make_pte", "pgd_val", "make_pgd", "pmd_val", "make_pmd"];

    // A function that only a kernel built for the hypervisor has; any of them will do, as they came and went with versions.
    private static readonly Dictionary<string, string[]> s_proof = new()
    {
        [NativeBackend.Name] = [],
        [KvmBackend.Name] = ["kvm_guest_init", "kvm_io_delay", "kvm_detect"],
        [XenBackend.Name] = ["xen_start_kernel", "xen_irq_enable_direct"],
        [HyperVBackend.Name] = ["ms_hyperv_init_platform", "hyperv_init"],
        [VmwareBackend.Name] = ["vmware_platform", "vmware_platform_setup"],
        [TdxBackend.Name] = ["tdx_safe_halt", "tdx_early_init"],
        [LguestBackend.Name] = ["lguest_init", "lguest_patch"],
        [VmiBackend.Name] = ["vmi_init", "vmi_patch"],
    };

    internal static IReadOnlyList<string> NamesFor(KernelImage image) => [.. Names.Where(name => Has(image, name))];

    /// <summary>Makes a backend.</summary>
    /// <param name="image">The image.</param>
    /// <param name="machine">The machine it boots on.</param>
    /// <returns>The backend.</returns>
    /// <exception cref="PatchException">
    /// The name is none of <see cref="Names"/>, or the kernel lacks what the backend needs (PV6106); a slot or symbol of the overrides is
    /// unknown.
    /// </exception>
    public static Backend Create(KernelImage image, BootMachine machine)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentNullException.ThrowIfNull(machine);
        Backend backend = CreateNamed(image, machine);
        return backend.Derive(backend.Name, b =>
        {
            machine.Overrides?.Apply(b, image.Symbols, image.Targets.Find("nop_func"));
            NameTargets(b, image.Symbols);
        });
    }

    /// <summary>Makes a backend.</summary>
    /// <param name="image">The image.</param>
    /// <param name="machine">The machine it boots on.</param>
    /// <param name="backend">The backend.</param>
    /// <param name="error">Why there is none: the codes of <see cref="Create"/>.</param>
    /// <returns>Whether there is one.</returns>
    public static bool TryCreate(
        KernelImage image, BootMachine machine, [NotNullWhen(true)] out Backend? backend, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        try
        {
            backend = Create(image, machine);
            error = null;
            return true;
        }
        catch (PatchException e)
        {
            backend = null;
            error = e.Diagnostic;
            return false;
        }
    }

    /// <summary>The functions an image's tables hold, with the bodies of the native patch function.</summary>
    internal static Backend CreateNative(KernelEra era, OpsLayout layout, int bitness, SlotTargets targets, NativeOptions options)
    {
        Backend native = NativeBackend.Create(
            layout, bitness, targets, options with { InlineInterruptReturn = HasInterruptReturn(era, targets) });
        return !era.ErasesConversions ? native : native.Derive(native.Name, b =>
        {
            foreach (string name in s_conversions.Where(n => layout.TryGetSlot(n, out _)))
            {
                b.Set(name, b.Get(name).Target is VirtualAddress target ? Operation.Nop.WithTarget(target) : Operation.Nop);
            }
        });
    }

    // Until about 5.1 the bodies lay between labels in the kernel's code.
    private static bool? HasInterruptReturn(KernelEra era, SlotTargets targets) =>
        era.InlinesInterruptReturn
        ?? (targets.Find("start_pv_cpu_ops_iret") is not null ? true : targets.Find("start_pv_irq_ops_irq_disable") is not null
            ? false : null);

    private static Backend CreateNamed(KernelImage image, BootMachine machine)
    {
        Check(image, machine.Backend);
        OpsLayout layout = image.Layout;
        int bitness = image.Elf.Bitness;
        SlotTargets targets = image.Targets;
        bool spinlocks = machine.Cpus > 1 && !machine.NoPvSpin;
        var nativeOptions = new NativeOptions { HasLkgs = machine.HasLkgs };
        NativeOptions guestOptions = nativeOptions with { InlineInterruptReturn = HasInterruptReturn(image.Era, targets) };
        switch (machine.Backend)
        {
            case NativeBackend.Name:
                return CreateNative(image.Era, layout, bitness, targets, nativeOptions);
            case KvmBackend.Name:
                return KvmBackend.Create(layout, bitness, targets, KvmOf(machine), guestOptions);
            case XenBackend.Name:
                bool slotBySlot = image.Targets.Find("pv_ops") is not null && image.Targets.Find(XenTemplate.Symbol) is null;
                bool hooks = image.Targets.Find(XenDirectTemplates.Hook) is not null;
                XenDirectBodies? direct = null;
                bool placed = !hooks || XenDirectTemplates.TryRead(image.Elf, targets, out direct);
                var xenOptions = new XenOptions
                {
                    ParavirtSpinlocks = spinlocks,
                    KeepsNativeSlots = slotBySlot,
                    VcpuInfoPlaced = placed,
                    DirectBodies = direct
                };
                return XenTemplate.Apply(XenBackend.Create(layout, bitness, targets, xenOptions), image);
            case HyperVBackend.Name:
                var hyperVOptions = new HyperVOptions
                {
                    Features = machine.HyperVFeatures,
                    Hints = machine.HyperVHints,
                    NoPvSpin = machine.NoPvSpin
                };
                return HyperVBackend.Create(layout, bitness, targets, hyperVOptions, guestOptions);
            case VmwareBackend.Name:
                return VmwareBackend.Create(layout, bitness, targets, new VmwareOptions { Clock = machine.VmwareClock }, guestOptions);
            case TdxBackend.Name:
                return TdxBackend.Create(layout, bitness, targets, new TdxOptions { Kvm = KvmOf(machine) }, guestOptions);
            case LguestBackend.Name:
                // Until 2.6.30 the stores were all there was; the functions came because they look for pending interrupts too.
                return LguestBackend.Create(
                    layout, targets, new LguestOptions { InlineEnableAndRestore = targets.Find("lg_irq_enable") is null });
            case VmiBackend.Name:
                return VmiBackend.Create(layout, targets, machine.Vmi);
            default:
                throw new InvalidOperationException("the name was checked");
        }
    }

    private static KvmOptions KvmOf(BootMachine machine) => new()
    {
        Features = machine.OfferedKvmFeatures,
        MultipleCpus = machine.Cpus > 1,
        NoPvSpin = machine.NoPvSpin,
        HasMwait = machine.HasMwait,
    };

    private static bool Has(KernelImage image, string name) =>
        (image.Elf.Bitness == 32 || !s_only32.Contains(name))
        && (s_proof[name] is { Length: 0 } || s_proof[name].Any(symbol => image.Targets.Find(symbol) is not null));

    /// <summary>
    /// Throws where the kernel lacks the functions of a guest's backend: nearly every slot would be missing or stay native without a
    /// diagnostic.
    /// </summary>
    private static void Check(KernelImage image, string name)
    {
        if (!Names.Contains(name))
        {
            throw new PatchException(PatchDiagnostic.Error(KernelDiagnosticCodes.BackendNotInImage, $"there is no backend \"{name}\"") with
            {
                Expected = string.Join(", ", Names),
                Help = "Take the nearest one and say in a slot file what is different.",
            });
        }

        if (!Has(image, name))
        {
            throw new PatchException(PatchDiagnostic.Error(
                KernelDiagnosticCodes.BackendNotInImage, $"the kernel has not the functions of the backend \"{name}\"") with
            {
                Found = image.Symbols is null ? "no symbols" : $"none of {string.Join(", ", s_proof[name])}",
                Expected = string.Join(", ", image.BackendNames),
                Help = image.Symbols is null
                    ? "Give a System.map of this kernel." : "The kernel was built without support for this hypervisor.",
            });
        }
    }

    private static void NameTargets(BackendBuilder backend, KernelSymbols? symbols)
    {
        foreach (OpSlot slot in backend.Layout.Slots)
        {
            Operation operation = backend.Get(slot.Name);
            if (operation is { Target: VirtualAddress target, TargetName: null } && symbols is not null
                && symbols.TryGetName(target, out string? name, out long offset) && offset == 0)
            {
                backend.Set(slot.Name, operation.Named(name));
            }
        }
    }
}
