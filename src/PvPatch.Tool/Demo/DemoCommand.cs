using System.CommandLine;
using PvPatch.Mechanisms;

namespace PvPatch.Tool.Demo;

/// <summary><c>pvpatch demo</c>: a built-in guest under every backend, side by side.</summary>
internal sealed class DemoCommand : ToolCommand
{
    private readonly Option<int> _bits = new("--bits")
    {
        Description = "Bitness of the guest: 32 or 64",
        HelpName = "32|64",
        DefaultValueFactory = static _ => 64,
    };

    private readonly Option<string?> _backend = new("--backend") { Description = "Only this backend", HelpName = "NAME" };

    public DemoCommand()
        : base(
            "demo",
            "Patch a built-in guest for every backend and show each site side by side. Reads and writes no file.",
            "demo",
            "demo --bits 32",
            "demo --backend xen --json")
    {
        _bits.AcceptOnlyFromAmong("32", "64");
        Definition.Options.Add(_bits);
        Definition.Options.Add(_backend);
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        DemoGuest guest = DemoGuest.Assemble(arguments.GetValue(_bits));
        IReadOnlyList<Backend> backends = arguments.GetValue(_backend) is string name ? [guest.Registry[name]] : guest.Registry.Backends;
        var planner = new PatchPlanner();
        DemoRun[] runs = [.. backends.Select(b => DemoRun.Of(guest, b, planner))];
        if (run.IsJson)
        {
            run.WriteJson(DemoDocument.Of(guest, runs));
        }
        else
        {
            new DemoText(guest, runs, run.Out).Write();
        }

        return ExitCodeOf(runs);
    }

    /// <summary>The exit code. A guest that is not as planned is an internal error.</summary>
    internal static ExitCode ExitCodeOf(IEnumerable<DemoRun> runs) => runs.All(static r => r.Holds) ? ExitCode.Success : ExitCode.Internal;
}
