using System.Globalization;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tool.Demo;

/// <summary>
/// A guest of the demo as text: a glossary, every site under every backend, the sites left alone with reasons, and the checks.
/// </summary>
internal sealed class DemoText(DemoGuest guest, IReadOnlyList<DemoRun> runs, TextOutput output)
{
    private const int NameWidth = 9;
    private const int ActionWidth = 13;
    private const int CodeWidth = 46;

    private const int MostHex = 16;
    private const int Width = 119;

    private readonly Disassembler _original = new(guest.Bitness, guest.NameOf);
    private readonly Disassembler[] _patched = [
        .. runs.Select(r => new Disassembler(guest.Bitness, a => guest.NameOf(a) ?? ThunkAt(r.Plan, a)))];

    /// <summary>Writes several guests; what the words mean stands above the first.</summary>
    public static void Write(IReadOnlyList<(DemoGuest Guest, DemoRun[] Runs)> guests, TextOutput output)
    {
        string[] names = [.. guests.Select(static g => string.Create(
            CultureInfo.InvariantCulture, $"{g.Guest.Bitness} bits: {string.Join(", ", g.Runs.Select(static r => r.Plan.Backend))}"))];
        output.Line($"Guests and their backends: {string.Join("; ", names)}", Ink.Strong);
        output.Line();
        for (int i = 0; i < guests.Count; i++)
        {
            if (i > 0)
            {
                output.Line();
            }

            new DemoText(guests[i].Guest, guests[i].Runs, output).Write(isFirst: i == 0);
        }
    }

    private void Write(bool isFirst)
    {
        WriteIntroduction(isFirst);
        for (int i = 0; i < guest.Sites.Count; i++)
        {
            WriteSite(i, guest.Sites[i]);
        }

        WriteThunks();
        WriteLeftAlone();
        WriteSummary();
    }

    private void WriteIntroduction(bool isFirst)
    {
        output.Line(
            string.Create(CultureInfo.InvariantCulture,
            $"A {guest.Bitness}-bit guest of {guest.Code.Length} bytes was assembled just now. It has {guest.Sites.Count} sites: "
            + $"places where it calls an operation"), Ink.Strong);
        output.Line("through a table (a slot, such as irq.irq_disable), because what the operation does depends on the hypervisor.");
        if (isFirst)
        {
            output.Line("Below, each site as it was and as it becomes under each backend. A site has a length that cannot change (its");
            output.Line("budget; nop(4) stands for four bytes of nops) and says which registers may be destroyed there.");
        }

        output.Line();
    }

    private void WriteSite(int index, PatchSite site)
    {
        OpSlot slot = guest.Registry.Layout[site.Slot];
        ReadOnlySpan<byte> old = guest.Code.Span.Slice((int)(site.Address - guest.Start), site.Budget);
        string stack = (site.Traits & SiteTraits.NoStack) != 0 ? ", has no stack" : "";
        output.Write(string.Create(CultureInfo.InvariantCulture, $"{index + 1,2}  {slot.Name}"), Ink.Strong)
            .Line(string.Create(CultureInfo.InvariantCulture,
                $"  at {site.Address}, {site.Budget} bytes{stack}, may destroy {Words.Of(site.Clobbers, guest.Bitness)}"));
        WriteCode(_original, "original", "", Ink.Plain, old, site.Address);
        for (int i = 0; i < runs.Count; i++)
        {
            PatchPlan plan = runs[i].Plan;
            WriteDecision(i, plan[plan.IndexContaining(site.Address)]);
        }

        output.Line();
    }

    private void WriteDecision(int run, SiteDecision decision) =>
        WriteCode(_patched[run], runs[run].Plan.Backend, Words.Of(decision.Action), Words.InkOf(decision.Action), decision.NewBytes,
            decision.Address);

    private void WriteCode(Disassembler disassembler, string name, string action, Ink ink, ReadOnlySpan<byte> bytes, VirtualAddress address)
    {
        List<string> lines = Lines.Wrap(disassembler.Pieces(bytes, address), "; ", CodeWidth);
        string hex = bytes.Length <= MostHex
            ? HexBytes.Format(bytes) : string.Create(CultureInfo.InvariantCulture, $"{bytes.Length} bytes");
        foreach (string line in lines)
        {
            output.Write("    ").Column(name, NameWidth).Column(action, ActionWidth, ink);
            bool room = line.Length <= CodeWidth && hex.Length > 0; // else the bytes go beside the next line
            output.Column(line, room ? CodeWidth : 0).Line(room ? $" {hex}" : "", Ink.Faint);
            (name, action, hex) = ("", "", room ? "" : hex);
        }

        if (hex.Length > 0)
        {
            output.Column("", 4 + NameWidth + ActionWidth + CodeWidth).Line($" {hex}", Ink.Faint);
        }
    }

    private static string? ThunkAt(PatchPlan plan, ulong address)
    {
        int index = plan.IndexContaining(address);
        return index >= 0 && plan[index].Action == PatchAction.Thunk ? $"thunk({plan[index].Outcome.TargetName})" : null;
    }

    private void WriteThunks()
    {
        if (!runs.Any(static r => r.Plan.Summary.Count(PatchAction.Thunk) > 0))
        {
            return;
        }

        output.Line("Thunks: a function that destroys more than the site allows is called through a few instructions that save the rest",
            Ink.Strong);
        for (int i = 0; i < runs.Count; i++)
        {
            PatchPlan plan = runs[i].Plan;
            for (int k = 0; k < plan.Count; k++)
            {
                if (plan[k].Action == PatchAction.Thunk)
                {
                    WriteDecision(i, plan[k]);
                }
            }
        }

        output.Line();
    }

    private void WriteLeftAlone()
    {
        output.Line("Left alone, and why", Ink.Strong);
        bool none = true;
        foreach (DemoRun run in runs)
        {
            foreach (PatchReason reason in Enum.GetValues<PatchReason>())
            {
                if (reason == PatchReason.None || run.Plan.Summary.Count(reason) == 0)
                {
                    continue;
                }

                none = false;
                output.Write("    ").Column(run.Plan.Backend, NameWidth).Write(reason.ToString(), Ink.Warning)
                    .Line($": {Words.Of(reason)}");
                WriteSitesLeftAlone(run.Plan, reason);
            }
        }

        if (none)
        {
            output.Line("    nothing");
        }

        output.Line();
    }

    private void WriteSitesLeftAlone(PatchPlan plan, PatchReason reason)
    {
        for (int i = 0; i < guest.Sites.Count; i++)
        {
            SiteDecision decision = plan[plan.IndexContaining(guest.Sites[i].Address)];
            if (decision.Reason == reason)
            {
                string detail = decision.Outcome.Detail is string text ? $" ({text})" : "";
                output.Column("", 4 + NameWidth).Line(string.Create(CultureInfo.InvariantCulture, $"{i + 1,2} {decision.Label}{detail}"));
            }
        }
    }

    private void WriteSummary()
    {
        output.Line("Applied, verified, applied again, reverted", Ink.Strong);
        foreach (DemoRun run in runs)
        {
            string name = run.Plan.Backend;
            foreach (string line in Lines.Wrap(run.Plan.Summary.ToString().Split(", "), ", ", Width - 4 - NameWidth))
            {
                output.Write("    ").Column(name, NameWidth).Line(line);
                name = "";
            }

            output.Column("", 4 + NameWidth);
            Check(run.Verified, "every site as planned");
            Check(run.OutsideUntouched, "nothing else changed");
            Check(run.WrittenAgain == 0, "a second apply wrote nothing");
            Check(run.Restored, "reverted bit for bit", last: true);
        }
    }

    private void Check(bool ok, string what, bool last = false)
    {
        output.Write(ok ? what : $"NOT TRUE: {what}", ok ? Ink.Good : Ink.Bad);
        if (last)
        {
            output.Line();
        }
        else
        {
            output.Write(", ");
        }
    }
}
