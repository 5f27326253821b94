using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using PvPatch.Linux;
using PvPatch.Linux.Text;
using PvPatch.Paravirt;

namespace PvPatch.Tool.CommandLine;

/// <summary>The options of the machine a kernel boots on, for every command that plans.</summary>
internal sealed class MachineOptions
{
    private const int MostCpus = 1 << 20;
    private const int LargestSlotFile = 1 << 20;

    private static readonly Dictionary<string, VmwareClock> s_clocks = new()
    {
        ["none"] = VmwareClock.None,
        ["frequency"] = VmwareClock.Frequency,
        ["stolen-time"] = VmwareClock.StolenTime,
    };

    private readonly Option<int?> _cpus = new("--cpus",
        "--smp")
    {
        Description = "How many CPUs are possible; 1 where it is not said. Paravirtual spinlocks need two, but for Hyper-V's",
        HelpName = "N"
    };

    private readonly Option<bool> _noPvSpin = new("--nopvspin")
    {
        Description = "The kernel is started with nopvspin, on Hyper-V with hv_nopvspin",
    };

    private readonly Option<string?> _kvmFeatures = new("--kvm-features")
    {
        Description = "What a KVM host offers: CPUID 0x40000001, eax, as 0x22a2; else the usual ones",
        HelpName = "BITS"
    };

    private readonly Option<string?> _hyperVFeatures = new("--hyperv-features")
    {
        Description = "What a Hyper-V host offers: CPUID 0x40000003, eax, as 0x602; else the usual ones",
        HelpName = "BITS"
    };

    private readonly Option<string?> _hyperVHints = new("--hyperv-hints")
    {
        Description = "What a Hyper-V host recommends: CPUID 0x40000004, eax, as 0x404; else the usual ones",
        HelpName = "BITS"
    };

    private readonly Option<string?> _vmwareClock = new("--vmware-clock")
    {
        Description = $"What a VMware host answers about clocks, for kernels to 5.10: {string.Join(", ", s_clocks.Keys)}; else all",
        HelpName = "CLOCK",
    };

    private readonly Option<string?> _cpu = new("--cpu")
    {
        Description =
            $"The processor, for kernels that choose nops by it (to 5.12): {string.Join(", ", CpuModel.All.Select(static m => m.Name))}",
        HelpName = "MODEL",
    };

    private readonly Option<bool> _mwait = new("--mwait") { Description = "The CPU has MWAIT: a KVM guest then leaves TLB flushes alone" };

    private readonly Option<bool> _lkgs = new("--lkgs") { Description = "The CPU has LKGS" };

    private readonly Option<string?> _slots = new("--slots")
    {
        Description = "A JSON object of slots and what they hold: a symbol, an address, \"nop\" or null",
        HelpName = "FILE",
    };

    /// <summary>Gives a command the options.</summary>
    public MachineOptions(Command command)
    {
        Option[] all = [_cpus, _noPvSpin, _kvmFeatures, _hyperVFeatures, _hyperVHints, _vmwareClock, _cpu, _mwait, _lkgs, _slots];
        foreach (Option option in all)
        {
            command.Options.Add(option);
        }

        _cpus.Validators.Add(result =>
        {
            // What is no number is found by the parser.
            if (result.Tokens.Count == 1 && int.TryParse(result.Tokens[0].Value, CultureInfo.InvariantCulture, out int cpus)
                && cpus is < 1 or > MostCpus)
            {
                result.AddError($"--cpus takes a number from 1 to {MostCpus}, not {cpus}");
            }
        });
        CheckBits(_kvmFeatures, "0x22a2");
        CheckBits(_hyperVFeatures, "0x602");
        CheckBits(_hyperVHints, "0x404");
        _vmwareClock.Validators.Add(
            result => Check(result, s_clocks.ContainsKey, $"--vmware-clock takes one of {string.Join(", ", s_clocks.Keys)}"));
        _cpu.Validators.Add(result => Check(result, static text => CpuModel.TryGet(text, out _),
            $"--cpu takes one of {string.Join(", ", CpuModel.All.Select(static m => m.Name))}"));
    }

    /// <summary>The name of a VMware clock on the command line.</summary>
    public static string NameOf(VmwareClock clock) => s_clocks.Single(c => c.Value == clock).Key;

    /// <summary>The files that the options name.</summary>
    public IEnumerable<string?> Files(ParseResult arguments) => [arguments.GetValue(_slots)];

    /// <summary>The values of the options.</summary>
    /// <exception cref="ToolFailure">The slot file cannot be read (PV7007, PV6108).</exception>
    public MachineSettings Read(ParseResult arguments) => new(
        new KnownMachine
        {
            Cpus = arguments.GetValue(_cpus),
            NoPvSpin = arguments.GetValue(_noPvSpin),
            KvmFeatures = (KvmFeatures?)Bits(arguments, _kvmFeatures),
            HyperVFeatures = (HyperVFeatures?)Bits(arguments, _hyperVFeatures),
            HyperVHints = (HyperVHints?)Bits(arguments, _hyperVHints),
            VmwareClock = arguments.GetValue(_vmwareClock) is string clock && s_clocks.TryGetValue(clock, out VmwareClock answers)
                ? answers : null,
            HasMwait = arguments.GetValue(_mwait),
            HasLkgs = arguments.GetValue(_lkgs),
            Overrides = arguments.GetValue(_slots) is string path ? ReadSlots(path) : null,
        },
        arguments.GetValue(_cpu) is string name && CpuModel.TryGet(name, out CpuModel? model) ? model : null);

    private static SlotOverrides ReadSlots(string path)
    {
        ReadOnlyMemory<byte> text = InputFile.Read(path, "--slots", LargestSlotFile);
        return SlotOverrides.TryRead(text, out SlotOverrides? overrides, out PatchDiagnostic? error)
            ? overrides : throw new ToolFailure(error with { Source = path });
    }

    private static uint? Bits(ParseResult arguments, Option<string?> option) =>
        arguments.GetValue(option) is string text && TryParseBits(text, out uint bits) ? bits : null;

    private static void CheckBits(Option<string?> option, string example) =>
        option.Validators.Add(
            result => Check(result, static text => TryParseBits(text, out _), $"{option.Name} takes a number of 32 bits, as {example}"));

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
