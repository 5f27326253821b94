using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Eras;

/// <summary>
/// Traits of an image that tell its era. An era fits where no trait contradicts its record; unknown traits contradict none. All facts are
/// in <see cref="KernelEra"/>: a new era is one record there and nothing here.
/// </summary>
internal sealed record EraTraits
{
    private const string CalleeSaveProbe = "irq.save_fl";

    /// <summary>The table that holds the sites.</summary>
    public required SiteSource Source { get; init; }

    /// <summary>32 or 64.</summary>
    public required int Bitness { get; init; }

    /// <summary>Arrangement of the slots in memory.</summary>
    public required SlotPlacement Placement { get; init; }

    /// <summary>The forms of the sites; <see langword="null"/> where they were not looked at.</summary>
    public SiteShapes? Shapes { get; init; }

    /// <summary>Whether the image's type information gave the layout, whose tables then tell nothing.</summary>
    public bool HasTypes { get; init; }

    /// <summary>The slots.</summary>
    public required OpsLayout Layout { get; init; }

    /// <summary>Whether the image has a symbol; <see langword="null"/> where it has no symbols at all.</summary>
    public Func<string, bool>? HasSymbol { get; init; }

    /// <summary>Whether the image's own patcher compares clobbers; <see langword="null"/> where its code could not be read.</summary>
    public bool? TestsClobbers { get; init; }

    /// <summary>The eras that fit, oldest first. An era whose images cannot be told from those of the next is not among them.</summary>
    public IReadOnlyList<KernelEra> Match() =>
        [.. KernelEra.All.Where(era => !era.IsReadAsNext && Contradictions(era).All(static c => !c.Holds))];

    /// <summary>The traits that rule eras out, for a message: each one that contradicts at least one of the eras.</summary>
    public string Describe() =>
        string.Join("; ", KernelEra.All.SelectMany(Contradictions).Where(static c => c.Holds).Select(static c => c.Trait).Distinct());

    private IEnumerable<(bool Holds, string Trait)> Contradictions(KernelEra era)
    {
        yield return (
            era.Source != Source, Source == SiteSource.ParaInstructions ? "a table of sites" : "direct calls among the alternatives");
        yield return (era.Placement != Placement, Placement switch
        {
            SlotPlacement.OneTable => "one ops table",
            SlotPlacement.TableByTable => "several ops tables",
            _ => "a word for each type of site",
        });
        yield return (Bitness == 64 && era.Is32BitOnly, "64 bits");
        foreach ((SiteShapes shape, string text) in SiteEvidence.ShapeTexts)
        {
            yield return (((Shapes ?? SiteShapes.None) & shape) != 0 && (era.PossibleShapes & shape) == 0, text);
            yield return (Shapes is SiteShapes found && (era.NecessaryShapes(Bitness) & shape & ~found) != 0, "no " + text);
        }

        yield return (HasTypes && !era.MayHaveTypes, "type information");
        yield return (!HasTypes && era.HasTables is bool tables && tables != Layout.Tables.Count > 1,
            Layout.Tables.Count > 1 ? "slots in several tables" : "slots in one table");
        foreach ((bool contradicts, string text) in Presence(era.Slots, era.AbsentSlots, HasSlot, "slot"))
        {
            yield return (contradicts, text);
        }

        foreach ((bool contradicts, string text) in HasSymbol is null ? [] : Presence(era.Symbols, era.AbsentSymbols, HasSymbol, "symbol"))
        {
            yield return (contradicts, text);
        }

        bool? calleeSave = Layout.TryGetSlot(CalleeSaveProbe, out OpSlot? probe) ? probe.Convention == CallConvention.CalleeSave : null;
        yield return (calleeSave ^ era.HasCalleeSave ?? false, calleeSave == true ? "callee-save slots" : "no callee-save slots");
        yield return (TestsClobbers ^ era.TestsClobbers ?? false,
            TestsClobbers == true ? "a patcher that looks at clobbers" : "a patcher that does not look at clobbers");
    }

    private static IEnumerable<(bool Contradicts, string Trait)> Presence(
        string[] must, string[] mustNot, Func<string, bool> has, string what) =>
        must.Where(name => !has(name)).Select(name => (true, $"no {what} {name}"))
            .Concat(mustNot.Where(has).Select(name => (true, $"the {what} {name}")));

    /// <param name="name">The name of a slot, or of a table with a dot behind it for any slot of that table.</param>
    private bool HasSlot(string name) => name.EndsWith('.')
        ? Layout.Tables.Any(t => t.Name.Length == name.Length - 1 && name.StartsWith(t.Name, StringComparison.Ordinal) && t.Slots.Count > 0)
        : Layout.TryGetSlot(name, out _);
}
