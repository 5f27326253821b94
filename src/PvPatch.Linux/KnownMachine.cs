using PvPatch.Linux.Text;
using PvPatch.Machine;
using PvPatch.Paravirt;

namespace PvPatch.Linux;

/// <summary>
/// Known facts of a machine that a kernel boots on. An unknown fact has the default of <see cref="BootMachine"/> where one machine is asked
/// for (<see cref="ToMachine"/>), and is left open where all machines are looked at (<see cref="Variants"/>).
/// </summary>
public sealed record KnownMachine
{
    // Each set of bits that alone decides something, the likely one first.
    private static readonly HyperVFeatures[] s_hyperVFeatures = [Paravirt.HyperVFeatures.Usual,
        Paravirt.HyperVFeatures.ReferenceCounter | Paravirt.HyperVFeatures.GuestIdle, Paravirt.HyperVFeatures.None];

    private static readonly HyperVHints[] s_hyperVHints = [
        Paravirt.HyperVHints.Usual, Paravirt.HyperVHints.RemoteTlbFlush, Paravirt.HyperVHints.ClusterIpi, Paravirt.HyperVHints.None];

    // Those that change slots of kernels from 2.6.36 on, each by itself. Of the two clocks a kernel takes either.
    private static readonly KvmFeatures[] s_separateKvmFeatures =
    [
        Paravirt.KvmFeatures.ClockSource | Paravirt.KvmFeatures.ClockSource2 | Paravirt.KvmFeatures.ClockSourceStable,
        Paravirt.KvmFeatures.NopIoDelay, Paravirt.KvmFeatures.StealTime, Paravirt.KvmFeatures.PvUnhalt, Paravirt.KvmFeatures.PvTlbFlush,
    ];

    // The families of nops that a kernel to 5.12 chooses from by processor (ideal_nops, arch/x86/kernel/alternative.c of 5.10).
    private static readonly NopStyle[] s_nops64 = [NopStyle.P6, NopStyle.K8];

    private static readonly NopStyle[] s_nops32 = [NopStyle.P6, NopStyle.K8, NopStyle.K7, NopStyle.Intel];

    /// <summary>Number of possible CPUs.</summary>
    public int? Cpus { get; init; }

    /// <summary>
    /// Whether the kernel is known to be started with <c>nopvspin</c> (<c>hv_nopvspin</c> on Hyper-V); <see langword="false"/> leaves it
    /// open.
    /// </summary>
    public bool NoPvSpin { get; init; }

    /// <summary>Features of a KVM host: CPUID 0x40000001, eax.</summary>
    public KvmFeatures? KvmFeatures { get; init; }

    /// <summary>Features of a Hyper-V host: CPUID 0x40000003, eax.</summary>
    public HyperVFeatures? HyperVFeatures { get; init; }

    /// <summary>Recommendations of a Hyper-V host: CPUID 0x40000004, eax.</summary>
    public HyperVHints? HyperVHints { get; init; }

    /// <summary>Clock of a VMware host.</summary>
    public VmwareClock? VmwareClock { get; init; }

    /// <summary>Nops of the CPU, for kernels that choose by it (to 5.12).</summary>
    public NopStyle? Nops { get; init; }

    /// <summary>Whether the CPU is known to have MWAIT; <see langword="false"/> leaves it open.</summary>
    public bool HasMwait { get; init; }

    /// <summary>Whether the CPU is known to have LKGS; <see langword="false"/> leaves it open.</summary>
    public bool HasLkgs { get; init; }

    /// <summary>Slots whose content differs from the backend's.</summary>
    public SlotOverrides? Overrides { get; init; }

    /// <summary>The machine of a backend, unknown facts at their defaults.</summary>
    /// <param name="backend">A name from <see cref="KernelBackends.Names"/>.</param>
    /// <returns>The machine.</returns>
    public BootMachine ToMachine(string backend)
    {
        var machine = new BootMachine { Backend = backend };
        return machine with
        {
            Cpus = Cpus ?? machine.Cpus,
            NoPvSpin = NoPvSpin,
            KvmFeatures = KvmFeatures ?? machine.KvmFeatures,
            HyperVFeatures = HyperVFeatures ?? machine.HyperVFeatures,
            HyperVHints = HyperVHints ?? machine.HyperVHints,
            VmwareClock = VmwareClock ?? machine.VmwareClock,
            Nops = Nops ?? machine.Nops,
            HasMwait = HasMwait,
            HasLkgs = HasLkgs,
            Overrides = Overrides,
        };
    }

    /// <summary>
    /// The machines of a backend that may leave different bytes at a kernel's sites: each combination of unknown facts, the likely one
    /// first. Not all of them differ in every kernel.
    /// </summary>
    internal IEnumerable<BootMachine> Variants(KernelImage image, string backend)
    {
        BootMachine usual = ToMachine(backend);
        bool isKvm = backend is KvmBackend.Name or TdxBackend.Name;
        foreach (NopStyle nops in NopChoices(image))
        {
            foreach (BootMachine host in Hosts(usual))
            {
                foreach (
                    int cpus in Cpus is null && backend is not (HyperVBackend.Name or VmwareBackend.Name) ? [1, 2] : (int[])[usual.Cpus])
                {
                    foreach (bool noSpin in NoPvSpin || (cpus == 1 && backend != HyperVBackend.Name) ? [NoPvSpin] : (bool[])[false, true])
                    {
                        foreach (bool mwait in isKvm && !HasMwait ? [false, true] : (bool[])[HasMwait])
                        {
                            foreach (bool lkgs in HasLkgs ? [true] : (bool[])[false, true])
                            {
                                yield return host with { Nops = nops, Cpus = cpus, NoPvSpin = noSpin, HasMwait = mwait, HasLkgs = lkgs };
                            }
                        }
                    }
                }
            }
        }
    }

    /// <summary>A KVM guest on hosts that leave features out: each set of those that change slots, the most complete first.</summary>
    internal static IEnumerable<BootMachine> FeatureSets(BootMachine machine)
    {
        foreach (int left in Enumerable.Range(0, 1 << s_separateKvmFeatures.Length).OrderBy(static bits => int.PopCount(bits)))
        {
            KvmFeatures features = Paravirt.KvmFeatures.Usual;
            for (int i = 0; i < s_separateKvmFeatures.Length; i++)
            {
                features &= (left >> i & 1) != 0 ? ~s_separateKvmFeatures[i] : ~Paravirt.KvmFeatures.None;
            }

            yield return machine with { KvmFeatures = features };
        }
    }

    /// <summary>The variants of a machine by host features that are not known: with the usual ones of the host, and with none.</summary>
    private IEnumerable<BootMachine> Hosts(BootMachine usual)
    {
        yield return usual;
        switch (usual.Backend)
        {
            case KvmBackend.Name or TdxBackend.Name when KvmFeatures is null:
                yield return usual with { KvmFeatures = Paravirt.KvmFeatures.None };
                break;
            case HyperVBackend.Name:
                foreach (HyperVFeatures features in HyperVFeatures is null ? s_hyperVFeatures : [usual.HyperVFeatures])
                {
                    foreach (HyperVHints hints in HyperVHints is null ? s_hyperVHints : [usual.HyperVHints])
                    {
                        if (features != usual.HyperVFeatures || hints != usual.HyperVHints)
                        {
                            yield return usual with { HyperVFeatures = features, HyperVHints = hints };
                        }
                    }
                }

                break;
            case VmwareBackend.Name when VmwareClock is null:
                yield return usual with { VmwareClock = Paravirt.VmwareClock.Frequency };
                yield return usual with { VmwareClock = Paravirt.VmwareClock.None };
                break;
        }
    }

    private NopStyle[] NopChoices(KernelImage image) =>
        !image.Era.ChoosesNopsByCpu || Nops is not null ? [ToMachine("").Nops] : image.Elf.Bitness == 64 ? s_nops64 : s_nops32;
}
