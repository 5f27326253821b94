namespace PvPatch.Plans;

/// <summary>What is said of a plan as a whole.</summary>
internal sealed record PlanHead
{
    public required string Backend { get; init; }

    public required string Rules { get; init; }

    public required int Bitness { get; init; }

    public required IReadOnlyList<PlanSegment> Segments { get; init; }

    public IReadOnlyList<PatchDiagnostic> Diagnostics { get; init; } = [];

    /// <summary>The plan whose bytes the image held when this one was made; its originals are this one's originals.</summary>
    public PatchPlan? Previous { get; init; }
}
