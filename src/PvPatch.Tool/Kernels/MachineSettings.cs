using System.Globalization;
using PvPatch.Linux;
using PvPatch.Linux.Text;
using PvPatch.Machine;
using PvPatch.Paravirt;

namespace PvPatch.Tool.Kernels;

/// <summary>What a user says of the machine a kernel boots on. What is not said has a default, or is left open where all possibilities are looked at.</summary>
internal sealed record MachineSettings
{
    // Each set of bits that alone decides something, the likely one first.
    private static readonly HyperVFeatures[] s_hyperVFeatures =
    [
        PvPatch.Paravirt.HyperVFeatures.Usual,
        PvPatch.Paravirt.HyperVFeatures.ReferenceCounter | PvPatch.Paravirt.HyperVFeatures.GuestIdle,
        PvPatch.Paravirt.HyperVFeatures.None,
    ];

    private static readonly HyperVHints[] s_hyperVHints =
    [
        PvPatch.Paravirt.HyperVHints.Usual,
        PvPatch.Paravirt.HyperVHints.RemoteTlbFlush,
        PvPatch.Paravirt.HyperVHints.ClusterIpi,
        PvPatch.Paravirt.HyperVHints.None,
    ];

    // Those that change slots of kernels from 2.6.36 on, each by itself. Of the two clocks a kernel takes either.
    private static readonly KvmFeatures[] s_separate =
    [
        KvmFeatures.ClockSource | KvmFeatures.ClockSource2 | KvmFeatures.ClockSourceStable,
        KvmFeatures.NopIoDelay, KvmFeatures.StealTime, KvmFeatures.PvUnhalt, KvmFeatures.PvTlbFlush,
    ];

    public int? Cpus { get; init; }

    public bool NoPvSpin { get; init; }

    public KvmFeatures? Features { get; init; }

    public HyperVFeatures? HyperVFeatures { get; init; }

    public HyperVHints? HyperVHints { get; init; }

    public VmwareClock? VmwareClock { get; init; }

    public CpuModel? Cpu { get; init; }

    public bool HasMwait { get; init; }

    public bool HasLkgs { get; init; }

    public SlotOverrides? Overrides { get; init; }

    /// <summary>The machine of a backend, with defaults for what is not said.</summary>
    public BootMachine Machine(KernelImage image, string backend)
    {
        var machine = new BootMachine { Backend = backend };
        return machine with
        {
            Cpus = Cpus ?? machine.Cpus,
            NoPvSpin = NoPvSpin,
            KvmFeatures = Features ?? machine.KvmFeatures,
            HyperVFeatures = HyperVFeatures ?? machine.HyperVFeatures,
            HyperVHints = HyperVHints ?? machine.HyperVHints,
            VmwareClock = VmwareClock ?? machine.VmwareClock,
            Nops = Cpu?.Nops(image.Elf.Bitness) ?? machine.Nops,
            HasMwait = HasMwait,
            HasLkgs = HasLkgs,
            Overrides = Overrides,
        };
    }

    /// <summary>
    /// The machines of a backend that may leave different bytes: each possibility of what is not said, the likely one first. Not all of them do in
    /// every kernel.
    /// </summary>
    public IEnumerable<MachineVariant> Variants(KernelImage image, string backend)
    {
        BootMachine usual = Machine(image, backend);
        bool isKvm = backend is KvmBackend.Name or TdxBackend.Name;
        foreach ((NopStyle nops, string cpu) in NopChoices(image))
        {
            foreach (BootMachine host in Hosts(usual))
            {
                foreach (int cpus in Cpus is null && backend is not (HyperVBackend.Name or VmwareBackend.Name) ? [1, 2] : (int[])[usual.Cpus])
                {
                    foreach (bool noSpin in NoPvSpin || (cpus == 1 && backend != HyperVBackend.Name) ? [NoPvSpin] : (bool[])[false, true])
                    {
                        foreach (bool mwait in isKvm && !HasMwait ? [false, true] : (bool[])[HasMwait])
                        {
                            foreach (bool lkgs in HasLkgs ? [true] : (bool[])[false, true])
                            {
                                BootMachine machine = host with { Nops = nops, Cpus = cpus, NoPvSpin = noSpin, HasMwait = mwait, HasLkgs = lkgs };
                                yield return new MachineVariant(Describe(machine, usual, cpu), machine);
                            }
                        }
                    }
                }
            }
        }
    }

    /// <summary>A machine on the hosts that offer what it is not said of: what the host offers usually, or nothing of it.</summary>
    private IEnumerable<BootMachine> Hosts(BootMachine usual)
    {
        yield return usual;
        switch (usual.Backend)
        {
            case KvmBackend.Name or TdxBackend.Name when Features is null:
                yield return usual with { KvmFeatures = KvmFeatures.None };
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
                yield return usual with { VmwareClock = PvPatch.Paravirt.VmwareClock.Frequency };
                yield return usual with { VmwareClock = PvPatch.Paravirt.VmwareClock.None };
                break;
        }
    }

    /// <summary>A KVM guest on hosts that leave features out: each set of those that change slots, the most complete first.</summary>
    /// <param name="image">The kernel.</param>
    /// <param name="machine">All else of the machine.</param>
    public IEnumerable<MachineVariant> FeatureSets(KernelImage image, BootMachine machine)
    {
        BootMachine usual = Machine(image, KvmBackend.Name);
        string cpu = NopChoices(image).FirstOrDefault(c => c.Nops == machine.Nops).Option ?? "";
        foreach (int left in Enumerable.Range(0, 1 << s_separate.Length).OrderBy(static bits => int.PopCount(bits)))
        {
            KvmFeatures features = KvmFeatures.Usual;
            for (int i = 0; i < s_separate.Length; i++)
            {
                features &= (left >> i & 1) != 0 ? ~s_separate[i] : ~KvmFeatures.None;
            }

            BootMachine variant = machine with { KvmFeatures = features };
            yield return new MachineVariant(Describe(variant, usual, cpu), variant);
        }
    }

    /// <summary>The families of nops, with the option that asks for each; the option is empty for what is asked for anyway.</summary>
    private IEnumerable<(NopStyle Nops, string Option)> NopChoices(KernelImage image)
    {
        int bitness = image.Elf.Bitness;
        NopStyle usual = Machine(image, "").Nops;
        return !image.Era.ChoosesNopsByCpu || Cpu is not null
            ? [(usual, "")]
            : CpuModel.All.DistinctBy(m => m.Nops(bitness)).Select(m => (m.Nops(bitness), m.Nops(bitness) == usual ? "" : $" --cpu {m.Name}"));
    }

    /// <summary>The backend and the options that make another machine of it than the usual one.</summary>
    private static string Describe(BootMachine machine, BootMachine usual, string cpu)
    {
        string text = machine.Backend;
        text += Changed("--kvm-features", (uint)KvmOf(machine), (uint)KvmOf(usual));
        text += Changed("--hyperv-features", (uint)machine.HyperVFeatures, (uint)usual.HyperVFeatures);
        text += Changed("--hyperv-hints", (uint)machine.HyperVHints, (uint)usual.HyperVHints);
        text += machine.VmwareClock == usual.VmwareClock ? "" : $" --vmware-clock {MachineOptions.NameOf(machine.VmwareClock)}";
        text += machine.Cpus == usual.Cpus ? "" : string.Create(CultureInfo.InvariantCulture, $" --cpus {machine.Cpus}");
        text += machine.NoPvSpin == usual.NoPvSpin ? "" : " --nopvspin";
        text += machine.HasMwait == usual.HasMwait ? "" : " --mwait";
        text += machine.HasLkgs == usual.HasLkgs ? "" : " --lkgs";
        return text + cpu;
    }

    private static KvmFeatures KvmOf(BootMachine machine) => machine.KvmFeatures ?? (machine.Backend == TdxBackend.Name ? KvmFeatures.UsualTdx : KvmFeatures.Usual);

    private static string Changed(string option, uint bits, uint usual) =>
        bits == usual ? "" : string.Create(CultureInfo.InvariantCulture, $" {option} 0x{bits:x}");
}

/// <summary>A machine among several, with the options that ask for it as its name.</summary>
/// <param name="Name">The backend and options, such as <c>kvm --cpus 2</c>.</param>
/// <param name="Machine">The machine.</param>
internal sealed record MachineVariant(string Name, BootMachine Machine);
