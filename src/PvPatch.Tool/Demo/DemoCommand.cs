using System.CommandLine;
using PvPatch.Mechanisms;

namespace PvPatch.Tool.Demo;

/// <summary><c>pvpatch demo</c>: two built-in guests under every backend, side by side.</summary>
internal sealed class DemoCommand : ToolCommand
{
    private static readonly int[] s_bits = [64, 32];

    private readonly Option<int?> _bits = new("--bits") { Description = "Only the guest of this bitness", HelpName = "32|64" };

    private readonly Option<string?> _backend = new("--backend") { Description = "Only this backend", HelpName = "NAME" };

    public DemoCommand()
        : base(
            "demo",
            "Patch two built-in guests, of 64 and of 32 bits, for every backend and show each site side by side. Reads and writes no file.",
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
        DemoGuest[] guests = [.. (arguments.GetValue(_bits) is int bits ? [bits] : s_bits).Select(DemoGuest.Assemble)];
        var planner = new PatchPlanner();
        (DemoGuest Guest, DemoRun[] Runs)[] shown =
        [
            .. Choose(guests, arguments.GetValue(_backend))
                .Select(c => (c.Guest, c.Backends.Select(b => DemoRun.Of(c.Guest, b, planner)).ToArray())),
        ];
        if (run.IsJson)
        {
            run.WriteJson(new DemoDocument([.. shown.Select(static s => DemoGuestPart.Of(s.Guest, s.Runs))]));
        }
        else
        {
            DemoText.Write(shown, run.Out);
        }

        return ExitCodeOf(shown.SelectMany(static s => s.Runs));
    }

    /// <summary>The backends to show of each guest; guests that do not have the one asked for are left out.</summary>
    /// <exception cref="PatchException">No guest has it (PV2002).</exception>
    private static List<(DemoGuest Guest, IReadOnlyList<Backend> Backends)> Choose(DemoGuest[] guests, string? name)
    {
        List<(DemoGuest Guest, IReadOnlyList<Backend> Backends)> chosen =
        [
            .. guests.Select(g => (g, (IReadOnlyList<Backend>)[.. g.Registry.Backends.Where(b => name is null || b.Name == name)]))
                .Where(static c => c.Item2.Count > 0),
        ];
        if (name is not null && chosen.Count == 0)
        {
            _ = guests[^1].Registry[name]; // fails, with a suggestion: the last one's backends are all there are
        }

        return chosen;
    }

    /// <summary>The exit code. A guest that is not as planned is an internal error.</summary>
    internal static ExitCode ExitCodeOf(IEnumerable<DemoRun> runs) => runs.All(static r => r.Holds) ? ExitCode.Success : ExitCode.Internal;
}
