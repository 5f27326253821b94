namespace PvPatch.Paravirt;

/// <summary>What lguest guests disagree on. The defaults are those of 2.6.31 and later.</summary>
public sealed record LguestOptions
{
    /// <summary>
    /// The run address of <c>lguest_data</c>, the memory shared with the host; its first word is <c>irq_enabled</c>. <see langword="null"/> to ask the targets.
    /// Where it is not known there are no bodies.
    /// </summary>
    public VirtualAddress? LguestData { get; init; }

    /// <summary>
    /// Whether <c>irq.irq_enable</c> and <c>irq.restore_fl</c> have bodies (until 2.6.30). They were dropped because a guest that allows interrupts must
    /// then look whether one is pending, and a plain store does not.
    /// </summary>
    public bool InlineEnableAndRestore { get; init; }
}
