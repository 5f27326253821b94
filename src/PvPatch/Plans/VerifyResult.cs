using PvPatch.Images;
using PvPatch.Machine;

namespace PvPatch.Plans;

/// <summary>The state of an image, compared with a plan.</summary>
public sealed class VerifyResult
{
    internal VerifyResult(int patched, int original, int outside, IReadOnlyList<UnexpectedSite> others)
    {
        Patched = patched;
        Original = original;
        Outside = outside;
        Others = others;
    }

    /// <summary>Sites that hold the new bytes; those whose old and new bytes are the same count here.</summary>
    public int Patched { get; }

    /// <summary>Sites that hold the original bytes.</summary>
    public int Original { get; }

    /// <summary>Sites that are not in the image.</summary>
    public int Outside { get; }

    /// <summary>The sites that hold other bytes, in order of address.</summary>
    public IReadOnlyList<UnexpectedSite> Others { get; }

    /// <summary>Whether every site holds the new bytes.</summary>
    public bool IsPatched => Original == 0 && Outside == 0 && Others.Count == 0;

    /// <summary>The findings as diagnostics (PV4002), in order of address.</summary>
    /// <returns>One error for each of <see cref="Others"/>.</returns>
    public IEnumerable<PatchDiagnostic> ToDiagnostics() => Others.Select(static o => o.ToDiagnostic());

    /// <summary>Compares an image with a plan; writes nothing.</summary>
    internal static VerifyResult Of(PatchPlan plan, CodeImage image)
    {
        int patched = 0;
        int original = 0;
        int outside = 0;
        var others = new List<UnexpectedSite>();
        Span<byte> scratch = stackalloc byte[SiteBytes.MaxLength];
        for (int i = 0; i < plan.Count; i++)
        {
            if (!image.TryGetBytes(plan.Entries[i].Address, plan.LengthOf(i), out Span<byte> there))
            {
                outside++;
            }
            else if (there.SequenceEqual(plan.NewBytesOf(i, scratch)))
            {
                patched++;
            }
            else if (there.SequenceEqual(plan.OldBytesOf(i, scratch)))
            {
                original++;
            }
            else
            {
                others.Add(new UnexpectedSite(plan[i], there.ToArray()));
            }
        }

        PlanLog.Verified(plan.Logger, plan.Backend, patched, original, others.Count + outside);
        return new VerifyResult(patched, original, outside, others);
    }
}

/// <summary>A site that holds neither its original nor the plan's bytes.</summary>
public sealed class UnexpectedSite
{
    internal UnexpectedSite(SiteDecision decision, ReadOnlyMemory<byte> found)
    {
        Decision = decision;
        Found = found;
    }

    /// <summary>The plan's decision for it.</summary>
    public SiteDecision Decision { get; }

    /// <summary>The bytes there.</summary>
    public ReadOnlyMemory<byte> Found { get; }

    /// <summary>The finding as a diagnostic.</summary>
    /// <returns>An error PV4002 with both byte strings.</returns>
    public PatchDiagnostic ToDiagnostic() => Unexpected(Decision, Found.Span);

    internal static PatchDiagnostic Outside(SiteDecision site) =>
        PatchDiagnostic.Error(DiagnosticCodes.PlanOutsideImage, $"the site of {site.Label} is not in the image") with
        {
            SiteIndex = site.Index,
            Address = site.Address,
            Help = "Give the image the plan was made for.",
        };

    internal static PatchDiagnostic Unexpected(SiteDecision site, ReadOnlySpan<byte> found) =>
        PatchDiagnostic.Error(DiagnosticCodes.UnexpectedBytes, $"the site of {site.Label} holds bytes the plan does not know") with
        {
            SiteIndex = site.Index,
            Address = site.Address,
            Found = HexBytes.Format(found),
            Expected = $"{HexBytes.Format(site.OldBytes)} (original) or {HexBytes.Format(site.NewBytes)} (patched)",
            Help = "Is this the image the plan was made for, and was it changed by anything else since?",
        };
}
