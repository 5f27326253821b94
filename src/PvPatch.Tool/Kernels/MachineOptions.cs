using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using PvPatch.Backends;
using PvPatch.Linux.Kernel;

namespace PvPatch.Tool.Kernels;

/// <summary>The options that say what machine a kernel boots on, for every command that plans.</summary>
internal sealed class MachineOptions
{
    private const int MostCpus = 1 << 20;
    private const long LargestSlotFile = 16 << 20;

    private readonly Option<int?> _cpus = new("--cpus", "--smp") { Description = "How many CPUs are possible; 1 where it is not said. Paravirtual spinlocks need two", HelpName = "N" };

    private readonly Option<bool> _noPvSpin = new("--nopvspin") { Description = "The kernel is started with nopvspin" };

    private readonly Option<string?> _kvmFeatures = new("--kvm-features") { Description = "What a KVM host offers: CPUID 0x40000001, eax, as 0x22a2; else the usual ones", HelpName = "BITS" };

    private readonly Option<string?> _cpu = new("--cpu")
    {
        Description = $"The processor, for kernels that choose nops by it (to 5.12): {string.Join(", ", CpuModel.All.Select(static m => m.Name))}",
        HelpName = "MODEL",
    };

    private readonly Option<bool> _mwait = new("--mwait") { Description = "The CPU has MWAIT: a KVM guest then leaves TLB flushes alone" };

    private readonly Option<bool> _lkgs = new("--lkgs") { Description = "The CPU has LKGS" };

    private readonly Option<string?> _slots = new("--slots") { Description = "A JSON object of slots and what they hold: a symbol, an address, \"nop\" or null", HelpName = "FILE" };

    /// <summary>Gives a command the options.</summary>
    public MachineOptions(Command command)
    {
        Option[] all = [_cpus, _noPvSpin, _kvmFeatures, _cpu, _mwait, _lkgs, _slots];
        foreach (Option option in all)
        {
            command.Options.Add(option);
        }

        _cpus.Validators.Add(result =>
        {
            // What is no number is found by the parser.
            if (result.Tokens.Count == 1 && int.TryParse(result.Tokens[0].Value, CultureInfo.InvariantCulture, out int cpus) && cpus is < 1 or > MostCpus)
            {
                result.AddError($"--cpus takes a number from 1 to {MostCpus}, not {cpus}");
            }
        });
        _kvmFeatures.Validators.Add(result => Check(result, static text => TryParseBits(text, out _), "--kvm-features takes a number of 32 bits, as 0x22a2"));
        _cpu.Validators.Add(result => Check(result, static text => CpuModel.TryGet(text, out _), $"--cpu takes one of {string.Join(", ", CpuModel.All.Select(static m => m.Name))}"));
    }

    /// <summary>What the command line says.</summary>
    /// <exception cref="ToolFailure">The slot file cannot be read (PV7007, PV6108).</exception>
    public MachineSettings Read(ParseResult arguments) => new()
    {
        Cpus = arguments.GetValue(_cpus),
        NoPvSpin = arguments.GetValue(_noPvSpin),
        Features = arguments.GetValue(_kvmFeatures) is string bits && TryParseBits(bits, out uint features) ? (KvmFeatures)features : null,
        Cpu = arguments.GetValue(_cpu) is string name && CpuModel.TryGet(name, out CpuModel? model) ? model : null,
        HasMwait = arguments.GetValue(_mwait),
        HasLkgs = arguments.GetValue(_lkgs),
        Overrides = arguments.GetValue(_slots) is string path ? ReadSlots(path) : null,
    };

    private static SlotOverrides ReadSlots(string path)
    {
        byte[] text = InputFile.Read(path, "--slots", LargestSlotFile);
        return SlotOverrides.TryRead(text, out SlotOverrides? overrides, out PatchDiagnostic? error) ? overrides : throw new ToolFailure(error with { Source = path });
    }

    private static bool TryParseBits(string text, out uint bits) => text.StartsWith("0x", StringComparison.OrdinalIgnoreCase)
        ? uint.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out bits)
        : uint.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out bits);

    private static void Check(OptionResult result, Func<string, bool> isGood, string message)
    {
        if (result.Tokens.Count == 1 && !isGood(result.Tokens[0].Value))
        {
            result.AddError($"{message}, not \"{result.Tokens[0].Value}\"");
        }
    }
}
