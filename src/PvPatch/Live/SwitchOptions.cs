namespace PvPatch.Live;

/// <summary>What is known of other threads while sites are written.</summary>
public enum SwitchMode
{
    /// <summary>Threads may be anywhere, in the very sites that are written.</summary>
    Live,

    /// <summary>
    /// No thread is in generated code. With executors registered the call keeps them out, waits until all have left and lets them in again
    /// behind the last
    /// store: every site changes at once for them, so paired operations (save and restore) never come from two backends. Without executors
    /// the call is the host's promise.
    /// </summary>
    Quiescent,

    /// <summary>
    /// No thread is in the sites that are written, and none enters them before the call returns: new blocks, or an arena that nobody runs
    /// yet. The host's promise; refused while an
    /// executor is inside, unless nothing but new blocks are bound. Sites that could not be changed live afterwards stay indirect where
    /// that does the same.
    /// </summary>
    NotEntered,
}

/// <summary>Options for a live switch.</summary>
public sealed record SwitchOptions
{
    /// <summary>What is known of other threads.</summary>
    public SwitchMode Mode { get; init; }

    /// <summary>
    /// Whether bodies of several instructions are put into the sites themselves, where they fit, and not into islands. Not with
    /// <see cref="SwitchMode.Live"/>. Faster, but only
    /// a grace period, or quiescence, gets such a body out again.
    /// </summary>
    public bool InPlace { get; init; }

    /// <summary>
    /// Whether a switch of all sites, of a slot or of blocks takes linked sites (<see cref="LivePatcher.Link"/>) from their own targets
    /// too:
    /// for a mode in which every block ends in the dispatcher.
    /// </summary>
    public bool OverridesLinks { get; init; }

    /// <summary>
    /// How long to wait for executors to leave (quiescent) or to pass a safepoint (live, out of bodies of several instructions);
    /// <see cref="System.Threading.Timeout.InfiniteTimeSpan"/> for
    /// as long as it takes. Without a time limit a thread that the batch waits for can't wait for the batch: what it emits, binds or
    /// retires meanwhile is refused (PV8021).
    /// </summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>Gives the batch up: what was written is taken back. Looked at while waiting and between steps.</summary>
    public CancellationToken Cancellation { get; init; }

    /// <summary>Whether to wait for another thread's batch to end rather than be refused.</summary>
    public bool WaitForOther { get; init; }

    /// <summary>Asked when no thread is in generated code, before anything is decided; what it gives refuses the batch.</summary>
    internal Func<PatchDiagnostic?>? WhenQuiescent { get; init; }
}
