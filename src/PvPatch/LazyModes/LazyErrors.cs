using System.Globalization;

namespace PvPatch.LazyModes;

/// <summary>The errors of lazy modes: each names CPU, state, where it is and where the state came from.</summary>
internal static class LazyErrors
{
    /// <summary>Stands for no CPU, where a task is ended by none.</summary>
    public const int NoCpu = -1;

    public static string Name(LazyMode mode) => mode switch
    {
        LazyMode.None => "no",
        LazyMode.Mmu => "MMU",
        LazyMode.Cpu => "CPU",
        _ => mode.ToString(),
    };

    public static PatchException Active(LazyState state, int cpu, LazyMode mode, VirtualAddress site) => Make(
        DiagnosticCodes.LazyModeActive, cpu, site, $"{Name(mode)} lazy mode is entered while a mode is active", Describe(state), "no mode",
        "Leave the mode that is active first; the policy says if entering it again is counted, and if a context switch parks it");

    public static PatchException Unpaired(LazyState state, int cpu, LazyMode mode, VirtualAddress site) => Make(
        DiagnosticCodes.LazyModeUnpaired, cpu, site, $"{Name(mode)} lazy mode is left, but the CPU is not in it",
        Describe(state), $"{Name(mode)} mode, entered once", "Leave each mode as often as it was entered, and the one entered last");

    public static PatchException Preemptible(LazyState state, int cpu, VirtualAddress site, string message) => Make(
        DiagnosticCodes.LazyPreemptible, cpu, site, message, Describe(state), "preemption off",
        "Turn preemption off first (IsPreemptible): what is queued belongs to this CPU");

    public static PatchException InInterrupt(LazyState state, int cpu, VirtualAddress site, string message) => Make(
        DiagnosticCodes.LazyInterrupt, cpu, site, message,
        state.InterruptDepth == 0 ? Describe(state) : $"interrupt entered at {state.InterruptedAt}, {Describe(state)}", null,
        "In interrupt context there is no lazy mode; what it enters it must leave");

    public static PatchException Observed(LazyState state, int cpu, VirtualAddress site) => Make(
        DiagnosticCodes.LazyObserved, cpu, site, "An operation observes CPU state that calls put off may still change", Describe(state),
        "no mode", "Leave the mode first, or use a policy that makes the calls first (RefusesObservers)");

    public static PatchException Unissued(LazyState state, int cpu, VirtualAddress site, VirtualAddress openedAt, string message) => Make(
        DiagnosticCodes.LazyUnissued, cpu, site, message, $"call added at {openedAt} and not issued, {Describe(state)}", null,
        "Issue added calls first: from Add to Issue interrupts are off");

    public static PatchException Reentered(int cpu, VirtualAddress site, VirtualAddress flushedAt) => Make(
        DiagnosticCodes.LazyReentered, cpu, site, "The queue is used by its own sink or by a function it runs at a flush",
        $"flush from {flushedAt}", null, "Use it when the flush is over; nothing was changed");

    public static PatchException Arguments(int cpu, VirtualAddress site, int bytes, LazyPolicy policy) => Make(
        DiagnosticCodes.LazyArguments, cpu, site, "The arguments of a call are larger than the whole space for them", $"{bytes} bytes",
        $"at most {policy.ArgumentBytes} ({policy.Name})", "Make several calls of it");

    public static PatchException NoCallbacks(int cpu, VirtualAddress site, LazyPolicy policy) => Make(
        DiagnosticCodes.LazyArguments, cpu, site, "A function is to run at the next flush, but there is room for none",
        $"0 functions ({policy.Name})", null, "Use a policy with room for functions (Callbacks)");

    public static PatchException SinkAnswer(
        int cpu, VirtualAddress site, FlushReason reason, string message, string found, string expected) => Make(
        DiagnosticCodes.LazySinkAnswer, cpu, site, $"The hypervisor's answer to a flush ({reason}) makes no sense: {message}", found,
        expected, "What it completed is gone from the queue, the rest is still there");

    public static PatchException SinkFailed(int cpu, VirtualAddress site, FlushReason reason, int rest, Exception inner) => new(
        Error(
            DiagnosticCodes.LazySinkFailed, cpu, site, $"The sink failed in a flush ({reason}): {inner.Message}",
            string.Create(CultureInfo.InvariantCulture, $"{rest} calls still queued"), null,
            "The calls it completed are made; flush again to make the rest"),
        inner);

    public static PatchException CallbackFailed(int cpu, VirtualAddress site, Exception inner) => new(
        Error(
            DiagnosticCodes.LazySinkFailed, cpu, site, $"A function that a flush runs failed: {inner.Message}", "all calls made", null,
            "The other functions were run"),
        inner);

    public static PatchException Parked(LazyTask task, int cpu, VirtualAddress site, string what) => Make(
        DiagnosticCodes.LazyTask, cpu, site, $"Task {task.Name} {what} with a parked mode",
        string.Create(
            CultureInfo.InvariantCulture, $"{Name(task.Parked)} mode, entered at {task.EnteredAt}, parked by CPU {task.Cpu}"),
        "no mode", "Let it run and leave the mode first");

    public static PatchException Ended(LazyTask task, int cpu, VirtualAddress site) => Make(
        DiagnosticCodes.LazyTask, cpu, site, $"Task {task.Name} is used after its end", null, null, "Make a new one");

    private static string Describe(LazyState state) => state.Entered == LazyMode.None
        ? "no mode"
        : string.Create(
            CultureInfo.InvariantCulture,
            $"{Name(state.Entered)} mode, entered at {state.EnteredAt}{(state.Depth > 0 ? $" and {state.Depth} times more" : "")}");

    private static PatchException Make(
        string code, int cpu, VirtualAddress site, string message, string? found, string? expected, string help) =>
        new(Error(code, cpu, site, message, found, expected, help));

    private static PatchDiagnostic Error(
        string code, int cpu, VirtualAddress site, string message, string? found, string? expected, string help) =>
        PatchDiagnostic.Error(code, message) with
        {
            Source = cpu == NoCpu ? null : string.Create(CultureInfo.InvariantCulture, $"CPU {cpu}"),
            Address = site,
            Found = found,
            Expected = expected,
            Help = help,
        };
}
