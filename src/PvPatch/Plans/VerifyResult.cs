namespace PvPatch.Plans;

/// <summary>In which state an image is, compared with a plan.</summary>
/// <param name="Patched">How many sites hold the new bytes; sites whose old and new bytes are the same count here.</param>
/// <param name="Original">How many hold the original bytes.</param>
/// <param name="Outside">How many are not in the image.</param>
/// <param name="Others">The sites that hold other bytes.</param>
public sealed record VerifyResult(int Patched, int Original, int Outside, IReadOnlyList<UnexpectedSite> Others)
{
    /// <summary>Whether every site holds the new bytes.</summary>
    public bool IsPatched => Original == 0 && Outside == 0 && Others.Count == 0;

    /// <summary>The findings as diagnostics (PV4002), in order of address.</summary>
    /// <returns>One error for each of <see cref="Others"/>.</returns>
    public IEnumerable<PatchDiagnostic> ToDiagnostics() => Others.Select(static o => o.ToDiagnostic());
}

/// <summary>A site that holds neither its original nor the plan's bytes.</summary>
/// <param name="Decision">What the plan says of it.</param>
/// <param name="Found">What is there.</param>
public sealed record UnexpectedSite(SiteDecision Decision, ReadOnlyMemory<byte> Found)
{
    /// <summary>The finding as a diagnostic.</summary>
    /// <returns>An error PV4002 with both byte strings.</returns>
    public PatchDiagnostic ToDiagnostic() => Unexpected(Decision, Found.Span);

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
