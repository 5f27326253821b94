using PvPatch.Planning;
using PvPatch.Plans;
using PvPatch.Sites;

namespace PvPatch.Benchmarks;

/// <summary>All ways to patch one workload, and the proof that they do the same.</summary>
internal sealed class OfflineRivals
{
    private readonly PatchPlanner _planner = new();
    private readonly IcedRivals _iced;
    private readonly CLoop? _c;
    private readonly PatchPlan _plan;

    public OfflineRivals(Shape shape, int sites = Workload.DefaultSites)
    {
        Work = Workload.Create(shape, sites);
        _iced = new IcedRivals(Work);
        CLoop.TryCreate(Work, out _c);
        _plan = Plan();
        Compare();
    }

    public Workload Work { get; }

    public string Summary => $"{_plan.Summary}";

    public PatchPlan Plan() => _planner.Plan(Work.Image, Work.Sites, Work.Backend);

    public ApplyResult Apply() => _plan.Apply(Work.Image);

    public ApplyResult PlanAndApply() => Plan().Apply(Work.Image);

    public ApplyResult Revert() => _plan.Revert(Work.Image);

    public void Encoder() => _iced.WithEncoder();

    public void BlockEncoder() => _iced.WithBlockEncoder();

    public void C() => _c!.Run();

    /// <summary>Puts the original bytes back.</summary>
    public void Reset() => Work.Reset();

    /// <summary>Throws where a way gives other bytes than the reused encoder: speed at wrong work means nothing.</summary>
    private void Compare()
    {
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
        ApplyResult first = Apply();
        MustHold(wanted, "apply");
        ApplyResult second = Apply();
        MustHold(wanted, "the second apply");
        Must(first.Written > 0 && second.Written == 0 && second.AlreadyThere == Work.Sites.Count, "the second apply wrote something");
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
        Must(false, $"{way} left {Convert.ToHexString(Work.Text, start, length)} and not {Convert.ToHexString(wanted, start, length)} at {site?.ToString() ?? address.ToString()}");
    }

    private static void Must(bool holds, string complaint)
    {
        if (!holds)
        {
            throw new InvalidOperationException($"The benchmark computes something wrong: {complaint}.");
        }
    }
}
