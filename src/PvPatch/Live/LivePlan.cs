using System.Globalization;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// What a set of changes would do to running code as it is now, decided and not written. Made by <see cref="LivePatcher.Plan"/>, applied by
/// <see cref="LivePatcher.Apply(LivePlan, SwitchOptions?)"/>, which refuses it where anything it says of a site or slot is no longer so.
/// </summary>
public sealed class LivePlan
{
    private readonly PlanView _view;

    internal LivePlan(LivePatcher patcher, LiveChanges changes, SwitchOptions options, BatchReport report, PlanView view)
    {
        Patcher = patcher;
        Changes = changes;
        Options = options;
        KeptIndirect = report.KeptIndirect;
        KeptLinks = report.KeptLinks;
        _view = view;
    }

    /// <summary>
    /// The decisions as a plan like that of an image: every site with what it holds now as its old bytes, and every slot that is set, as
    /// eight bytes under
    /// <see cref="PatchAction.Slot"/>. To be summed up, listed, compared, explained and stored. The displacement of a jump to an island
    /// that has no place yet is zero, and the remark says so.
    /// </summary>
    public PatchPlan Plan => _view.Plan;

    /// <summary>The options it was made with.</summary>
    public SwitchOptions Options { get; }

    /// <summary>Number of sites that would be written.</summary>
    public int Writes => _view.Writes;

    /// <summary>Number of slots that would be given another function.</summary>
    public int SlotWrites => _view.SlotWrites;

    /// <summary>Number of sites that would stay indirect because they can be changed only at quiescence.</summary>
    public int KeptIndirect { get; }

    /// <summary>Number of sites that would keep a target of their own.</summary>
    public int KeptLinks { get; }

    internal LivePatcher Patcher { get; }

    internal LiveChanges Changes { get; }

    /// <summary>Compares the plan with what stands in its sites and slots now; writes nothing.</summary>
    /// <returns>
    /// How many hold the new bytes, the old ones, or others, and where the others are. Jumps to islands that had no place when the plan was
    /// made are among the others once it is applied.
    /// </returns>
    /// <exception cref="PatchException">The arena was disposed of (PV8004).</exception>
    public VerifyResult Verify()
    {
        Patcher.Arena.CheckUsable();
        return Plan.Verify(_view.ImageNow());
    }

    /// <inheritdoc/>
    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture, $"{Plan.Backend}: {Writes} sites and {SlotWrites} slots to write, {KeptIndirect} kept indirect; {Plan.Summary}");

    /// <summary>Why a plan that was made now is not this one.</summary>
    internal PatchDiagnostic? Compare(PlanView now)
    {
        foreach (PlanDifference difference in PlanDiff.Compare(Plan, now.Plan).Differences)
        {
            bool placed = difference.Kinds == PlanDifferenceKinds.NewBytes && _view.Unplaced.Contains(difference.Address);
            if (!placed)
            {
                return PatchDiagnostic.Error(DiagnosticCodes.PlanStale, $"the plan no longer fits the code: {difference.Kinds} differ") with
                {
                    Address = difference.Address,
                    Found = difference.Second?.ToString() ?? "no such site",
                    Expected = difference.First?.ToString() ?? "no such site",
                    Help = "Something was emitted, retired or switched since it was made, or the options are others. Make the plan again.",
                };
            }
        }

        return null;
    }
}
