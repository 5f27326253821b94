namespace PvPatch.Live;

/// <summary>What the parts of the planner share while a batch is decided.</summary>
internal sealed class BatchContext(CodeArena arena, SlotTable slots, BatchPlan plan, BatchRequest request, BatchReport report)
{
    public CodeArena Arena { get; } = arena;

    public SlotTable Slots { get; } = slots;

    public BatchPlan Plan { get; } = plan;

    public BatchRequest Request { get; } = request;

    public BatchReport Report { get; } = report;

    public bool IsLive { get; } = request.Options.Mode == SwitchMode.Live;

    /// <summary>The slots somebody goes through, now or while the batch is written or behind it.</summary>
    public bool[] CallsThroughSlot { get; } = new bool[slots.Layout.Count];

    /// <summary>Whether executors forwarded at a guard find in the slot what does its operation; else they must wait at the guard.</summary>
    public bool SlotAnswers(int slot) =>
        Request.SetsSlots || Request.Revert || (Request.Bound?[slot] is BackendBinding bound && bound.FunctionOf(slot).Error is null);
}
