using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Benchmarks;

/// <summary>All ways to patch one workload, and the proof that they do the same.</summary>
internal sealed class OfflineRivals
{
    private readonly PatchPlanner _planner = new();
    private readonly IcedRivals _iced;
    private readonly CLoop? _c;
    private readonly PatchPlan _plan;
    private readonly PlanOptions _switching;
    private readonly PatchPlan _fence;
    private readonly Backend[] _twins;
    private int _turn;

    public OfflineRivals(Shape shape, int sites = Workload.DefaultSites)
    {
        Work = Workload.Create(shape, sites);
        _iced = new IcedRivals(Work);
        CLoop.TryCreate(Work, out _c);
        _plan = Plan();
        // more than a planner keeps decisions for
        _twins = [.. Enumerable.Range(0, 9).Select(i => Work.Backend.Derive($"twin{i}", static _ => { }))];
        _switching = new PlanOptions { Previous = _plan };
        _fence = LeaveRoom();
        Compare();
    }

    public Workload Work { get; }

    public string Summary => $"{_plan.Summary}";

    public PatchPlan Plan() => _planner.Plan(Work.Image, Work.Sites, Work.Backend);

    public ApplyResult Apply() => _plan.Apply(Work.Image);

    /// <summary>By the way that needs no AVX-512.</summary>
    public void ApplyUnmasked() => Must(ImageApplier.TryRun(_plan, Work.Image, toNew: true, masked: false, out _), "apply refused");

    /// <summary>A plan for which the planner has kept no decision: the last one was for another backend.</summary>
    public PatchPlan PlanFirst() => _planner.Plan(Work.Image, Work.Sites, _twins[_turn++ % _twins.Length]);

    public ApplyResult PlanAndApply() => Plan().Apply(Work.Image);

    /// <summary>The plan for another backend in an image that is patched: its old bytes are the first plan's.</summary>
    public PatchPlan PlanSwitch() => _planner.Plan(Work.Image, Work.Sites, Work.OtherBackend, _switching);

    public ApplyResult Revert() => _plan.Revert(Work.Image);

    public void Encoder() => _iced.WithEncoder();

    public void BlockEncoder() => _iced.WithBlockEncoder();

    public void C() => _c!.Run();

    /// <summary>Puts the original bytes back.</summary>
    public void Reset() => Work.Reset();

    /// <summary>
    /// Leaves a hole for a plan in the heap, fenced by a plan that stays. Without it the collector would give the end of the heap
    /// back to the system after one plan and ask for it again for the next, and plans would be measured in page faults.
    /// </summary>
    private PatchPlan LeaveRoom()
    {
        PatchPlan[] plans = [Plan(), Plan(), Plan()];
        return plans[^1];
    }

    /// <summary>Throws where a way gives other bytes than the reused encoder: speed at wrong work means nothing.</summary>
    private void Compare()
    {
        Must(_fence.Count == Work.Sites.Count, "the plan has not every site");
        Reset();
        byte[] original = (byte[])Work.Text.Clone();
        Encoder();
        byte[] wanted = (byte[])Work.Text.Clone();
        Must(!wanted.AsSpan().SequenceEqual(original), "the encoder changed nothing");

        Reset();
        BlockEncoder();
        MustHold(wanted, "the block encoder");

        if (_c is not null)
        {
            Reset();
            C();
            MustHold(wanted, "the C loop");
        }

        Reset();
        ApplyUnmasked();
        MustHold(wanted, "apply without masks");
        Reset();
        ApplyResult first = Apply();
        MustHold(wanted, "apply");
        ApplyResult second = Apply();
        MustHold(wanted, "the second apply");
        Must(first.Written > 0 && second.Written == 0 && second.AlreadyThere == Work.Sites.Count, "the second apply wrote something");
        PatchPlan other = PlanSwitch();
        ApplyResult switched = other.Apply(Work.Image);
        Must(switched.Written > 0, "the switch wrote nothing");
        other.Revert(Work.Image);
        MustHold(original, "revert of the switch");
        Apply();
        Revert();
        MustHold(original, "revert");
        PlanAndApply();
        MustHold(wanted, "plan and apply");
        Reset();
    }

    private void MustHold(byte[] wanted, string way)
    {
        int same = Work.Text.AsSpan().CommonPrefixLength(wanted);
        if (same == wanted.Length)
        {
            return;
        }

        VirtualAddress address = Workload.Base + same;
        int index = Work.Sites.IndexContaining(address);
        PatchSite? site = index < 0 ? null : Work.Sites[index];
        int start = site is null ? same : (int)(site.Value.Address - Workload.Base);
        int length = site?.Budget ?? 1;
        Must(false,
            $"{way} left {Convert.ToHexString(Work.Text, start, length)} and not {Convert.ToHexString(wanted, start, length)} at "
            + $"{site?.ToString() ?? address.ToString()}");
    }

    private static void Must(bool holds, string complaint)
    {
        if (!holds)
        {
            throw new InvalidOperationException($"The benchmark computes something wrong: {complaint}.");
        }
    }
}
