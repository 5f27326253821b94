using System.Globalization;
using PvPatch.Linux;
using PvPatch.Paravirt;

namespace PvPatch.Tool.Kernels;

/// <summary>Facts of the machine a kernel boots on, given by the user, and the names of machines in options.</summary>
/// <param name="Facts">All but the nops.</param>
/// <param name="Cpu">The processor; <see langword="null"/> where it is not given.</param>
internal sealed record MachineSettings(KnownMachine Facts, CpuModel? Cpu)
{
    /// <summary>The known facts of the machine, for a kernel.</summary>
    public KnownMachine Known(KernelImage image) => Facts with { Nops = Cpu?.Nops(image.Elf.Bitness) };

    /// <summary>The machine of a backend, with defaults for facts that are not given.</summary>
    public BootMachine Machine(KernelImage image, string backend) => Known(image).ToMachine(backend);

    /// <summary>The name of a machine: its backend, and the options in which it differs from the machine of these facts.</summary>
    public string Describe(KernelImage image, BootMachine machine)
    {
        BootMachine usual = Machine(image, machine.Backend);
        string text = machine.Backend;
        text += Changed("--kvm-features", (uint)KvmOf(machine), (uint)KvmOf(usual));
        text += Changed("--hyperv-features", (uint)machine.HyperVFeatures, (uint)usual.HyperVFeatures);
        text += Changed("--hyperv-hints", (uint)machine.HyperVHints, (uint)usual.HyperVHints);
        text += machine.VmwareClock == usual.VmwareClock ? "" : $" --vmware-clock {MachineOptions.NameOf(machine.VmwareClock)}";
        text += machine.Cpus == usual.Cpus ? "" : string.Create(CultureInfo.InvariantCulture, $" --cpus {machine.Cpus}");
        text += machine.NoPvSpin == usual.NoPvSpin ? "" : " --nopvspin";
        text += machine.HasMwait == usual.HasMwait ? "" : " --mwait";
        text += machine.HasLkgs == usual.HasLkgs ? "" : " --lkgs";
        return text + (machine.Nops == usual.Nops ? "" : $" --cpu {CpuModel.With(machine.Nops, image.Elf.Bitness).Name}");
    }

    private static KvmFeatures KvmOf(BootMachine machine) =>
        machine.KvmFeatures ?? (machine.Backend == TdxBackend.Name ? KvmFeatures.UsualTdx : KvmFeatures.Usual);

    private static string Changed(string option, uint bits, uint usual) =>
        bits == usual ? "" : string.Create(CultureInfo.InvariantCulture, $" {option} 0x{bits:x}");
}
