namespace PvPatch.Plans;

/// <summary>Lays one plan over another: what several mechanisms do to the same code, one after the other, as a single plan.</summary>
public static class PlanComposer
{
    /// <summary>
    /// Composes two plans. Where both have a site, the result has the first plan's original bytes, label and type and the second
    /// plan's new bytes and action: as if the first had been applied and then the second.
    /// </summary>
    /// <param name="first">The plan that is applied first.</param>
    /// <param name="second">The plan made for the code as the first leaves it.</param>
    /// <returns>A plan from the first one's originals to the second one's results.</returns>
    /// <exception cref="PatchException">
    /// Sites overlap without being the same (PV1004), or the second plan was made for other bytes than the first leaves (PV4002).
    /// </exception>
    public static PatchPlan Compose(PatchPlan first, PatchPlan second)
    {
        ArgumentNullException.ThrowIfNull(first);
        ArgumentNullException.ThrowIfNull(second);
        PlanSegment[] segments = [.. first.Segments.Union(second.Segments)];
        var builder = new PlanBuilder(first.Backend, first.Rules, first.Bitness, segments, first.Count)
        {
            Previous = first.Previous,
            Logger = first.Logger,
        };
        foreach (PatchDiagnostic diagnostic in first.Diagnostics.Concat(second.Diagnostics))
        {
            builder.AddDiagnostic(diagnostic);
        }

        for (int i = 0; i < first.Count; i++)
        {
            SiteDecision below = first[i];
            int over = second.IndexContaining(below.Address);
            if (over < 0 || second[over].Address != below.Address || second[over].Length != below.Length)
            {
                builder.Add(below.Address, below.OldBytes, below.NewBytes, below.Outcome);
                continue;
            }

            SiteDecision above = second[over];
            if (!above.OldBytes.SequenceEqual(below.NewBytes))
            {
                throw new PatchException(UnexpectedSite.Unexpected(above, below.NewBytes));
            }

            builder.Add(below.Address, below.OldBytes, above.NewBytes, above.Outcome with
            {
                Label = below.Label,
                Type = below.Outcome.Type,
                Clobbers = below.Outcome.Clobbers,
            });
        }

        for (int i = 0; i < second.Count; i++)
        {
            SiteDecision above = second[i];
            int below = first.IndexContaining(above.Address);
            if (below < 0 || first[below].Address != above.Address || first[below].Length != above.Length)
            {
                builder.Add(above.Address, above.OldBytes, above.NewBytes, above.Outcome);
            }
        }

        return builder.Build();
    }
}
