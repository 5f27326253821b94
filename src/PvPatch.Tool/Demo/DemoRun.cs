using PvPatch.Images;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tool.Demo;

/// <summary>Result of the demo under one backend: planned, applied to a copy of the guest, verified, applied again, reverted.</summary>
internal sealed class DemoRun
{
    internal DemoRun(PatchPlan plan) => Plan = plan;

    /// <summary>The plan.</summary>
    public PatchPlan Plan { get; }

    /// <summary>Result of applying it.</summary>
    public ApplyResult Applied { get; private init; }

    /// <summary>Whether every site held the planned bytes afterwards.</summary>
    public bool Verified { get; init; }

    /// <summary>Whether no byte outside the sites (and thunks) had changed.</summary>
    public bool OutsideUntouched { get; init; }

    /// <summary>Number of sites written by a second apply; must be 0.</summary>
    public int WrittenAgain { get; init; }

    /// <summary>Whether revert gave the original back bit for bit.</summary>
    public bool Restored { get; init; }

    /// <summary>Whether all checks passed.</summary>
    public bool Holds => Verified && OutsideUntouched && WrittenAgain == 0 && Restored;

    /// <summary>Runs all steps for one backend.</summary>
    /// <exception cref="PatchException">The guest cannot be planned; it always can.</exception>
    public static DemoRun Of(DemoGuest guest, Backend backend, PatchPlanner planner)
    {
        CodeImage image = guest.CopyImage();
        var options = new PlanOptions { OpsTableAddress = guest.OpsTable, Thunks = guest.Thunks };
        PatchPlan plan = planner.Plan(image, guest.Sites, backend, options);
        ApplyResult applied = plan.Apply(image);
        bool verified = plan.Verify(image).IsPatched;
        bool untouched = IsUntouchedOutside(plan, guest, image);
        int again = plan.Apply(image).Written;
        plan.Revert(image);
        return new DemoRun(plan)
        {
            Applied = applied,
            Verified = verified,
            OutsideUntouched = untouched,
            WrittenAgain = again,
            Restored = image.Segments[0].Bytes.Span.SequenceEqual(guest.Code.Span),
        };
    }

    private static bool IsUntouchedOutside(PatchPlan plan, DemoGuest guest, CodeImage image)
    {
        byte[] patched = image.Segments[0].Bytes.ToArray();
        for (int i = 0; i < plan.Count; i++)
        {
            SiteDecision site = plan[i];
            int offset = (int)(site.Address - guest.Start);
            guest.Code.Span.Slice(offset, site.Length).CopyTo(patched.AsSpan(offset));
        }

        return patched.AsSpan().SequenceEqual(guest.Code.Span);
    }
}
