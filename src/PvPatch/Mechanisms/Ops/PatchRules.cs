using PvPatch.Machine;

namespace PvPatch.Mechanisms;

/// <summary>When an operation's inline body is used.</summary>
internal enum InlineRule
{
    /// <summary>Never.</summary>
    Never,

    /// <summary>Always, whatever function the slot holds now: the patch function looks at the type number only (2.6.20 to 5.10).</summary>
    BySlot,

    /// <summary>Only while the slot holds the function the body stands for.</summary>
    ByPointer,
}

/// <summary>What happens where a body, a call or a jump is longer than the site.</summary>
internal enum TooLongRule
{
    /// <summary>The next best form is tried, the site left alone at last.</summary>
    TryNext,

    /// <summary>The site is left alone.</summary>
    LeaveAlone,

    /// <summary>The kernel would stop (BUG): the plan fails with PV3004.</summary>
    Stop,
}

/// <summary>
/// How a decision is made, as data: <see cref="Default"/> is the best PvPatch can do; the records of <c>LinuxRules</c> do
/// exactly what that Linux did.
/// </summary>
public sealed record PatchRules
{
    /// <summary>The rules' name.</summary>
    public required string Name { get; init; }

    /// <summary>
    /// Whether the sites of a slot without a function become a direct call of the kernel's BUG function, whose address
    /// <see cref="PlanOptions.BugTarget"/> gives; else they become a trap: <c>ud2</c> (0f 0b), then nops.
    /// </summary>
    internal bool MissingCallsBug { get; init; }

    /// <summary>Whether there is a rule for operations without a body. 2.6.20 and 2.6.21 have none: such sites are left alone.</summary>
    public bool HasDefault { get; init; } = true;

    /// <summary>Whether a 32-bit identity becomes a move; else it is called like any function.</summary>
    public bool InlinesIdentity32 { get; init; } = true;

    /// <summary>Whether a 64-bit identity becomes a move; else it is called like any function.</summary>
    public bool InlinesIdentity64 { get; init; } = true;

    /// <summary>When inline bodies are used.</summary>
    internal InlineRule Inline { get; init; } = InlineRule.ByPointer;

    /// <summary>
    /// The slots whose bodies are used by pointer although <see cref="Inline"/> is by slot (the lock slots, 4.2 to 5.10).
    /// </summary>
    public IReadOnlySet<string> ByPointerSlots { get; init; } = new HashSet<string>();

    /// <summary>Where a body is longer than its site.</summary>
    internal TooLongRule BodyTooLong { get; init; } = TooLongRule.TryNext;

    /// <summary>Where a call is longer than its site.</summary>
    internal TooLongRule CallTooLong { get; init; } = TooLongRule.LeaveAlone;

    /// <summary>Where a jump is longer than its site.</summary>
    internal TooLongRule JumpTooLong { get; init; } = TooLongRule.LeaveAlone;

    /// <summary>
    /// Whether a site must allow what a call's target destroys; else it must allow <see cref="AnyClobbers32"/> or
    /// <see cref="AnyClobbers64"/>, whatever the target.
    /// </summary>
    internal bool ChecksTargetClobbers { get; init; } = true;

    /// <summary>The registers a 32-bit site must allow for any call (CLBR_ANY, 2.6.22 to 4.18); none from 4.18 with backports on.</summary>
    public RegisterSet AnyClobbers32 { get; init; } = RegisterSet.None;

    /// <summary>As <see cref="AnyClobbers32"/>, for 64-bit code.</summary>
    public RegisterSet AnyClobbers64 { get; init; } = RegisterSet.None;

    /// <summary>
    /// Whether a body or identity may only destroy what its site allows, and nothing may use a stack the site says it has not. Linux never
    /// asks.
    /// </summary>
    public bool ChecksBodyClobbers { get; init; } = true;

    /// <summary>The slots that are jumped to; <see langword="null"/> for those the layout says.</summary>
    public IReadOnlySet<string>? JumpSlots { get; init; }

    /// <summary>Whether a target that destroys too much may be called through a save/restore thunk, where the caller gives room.</summary>
    public bool UsesThunks { get; init; } = true;

    /// <summary>Whether a site without an indirect call or jump is left alone. Linux patches it all the same.</summary>
    public bool RequiresIndirectCall { get; init; } = true;

    /// <summary>
    /// Whether a backend's own patch function is looked at: what it leaves alone and where it goes on with the default rule.
    /// </summary>
    public bool UsesBackendPatchFunction { get; init; }

    /// <summary>The nops, where these rules fix them; else <see cref="PlanOptions.Nops"/> or the bitness chooses.</summary>
    public NopStyle? Nops64 { get; init; }

    /// <summary>As <see cref="Nops64"/>, for 32-bit code.</summary>
    public NopStyle? Nops32 { get; init; }

    /// <summary>The best PvPatch can do: every check on, every form tried.</summary>
    public static PatchRules Default { get; } = new() { Name = "Default", CallTooLong = TooLongRule.TryNext };

    /// <inheritdoc/>
    public override string ToString() => Name;
}
