using System.Runtime.CompilerServices;
using Microsoft.Extensions.Logging;
using PvPatch.Locks;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>How spinlocks are made.</summary>
public sealed record SpinLockOptions
{
    /// <summary>How often a lock is looked at before its function waits in the host (paravirtual).</summary>
    public int Spins { get; init; } = 1024;

    /// <summary>
    /// Whether locks and unlocks are checked: every one calls C#, and an unlock by another than the holder, or of a lock that is free, is
    /// not done and told of (<see cref="SpinLocks.Misuses"/>). For finding mistakes, not for speed.
    /// </summary>
    public bool Check { get; init; }
}

/// <summary>
/// Paravirtual spinlocks of generated code in one arena: the operations <see cref="Lock"/> and <see cref="Unlock"/>, for whose sites rdi is
/// the address of an aligned 8-byte word, and which destroy rax and flags only. Natively an unlock is one instruction in its site and
/// waiters spin; paravirtually waiters go to sleep in a <see cref="SpinLockHost"/> and unlocks kick them. The mode changes while locks are
/// held and waited for.
/// </summary>
/// <remarks>
/// A switch takes three steps, so that nobody ever sleeps whom an unlock would not kick: no waiter may go to sleep any more and those who
/// sleep are woken; sites and slots are switched; where the new mode is paravirtual, every executor has been outside since, and only then
/// may waiters sleep. In between all of them spin, which is right with the sites of either mode.
/// Its methods may be called from any thread that is outside generated code. Disposed of, it leaves the sites as they are.
/// </remarks>
public sealed unsafe class SpinLocks : IDisposable
{
    // The words that lock functions of an arena read live as long as it: its code may be run until then.
    private static readonly ConditionalWeakTable<CodeArena, List<int[]>> s_controls = [];

    private readonly Lock _sync = new();
    private readonly SpinLockHost _host;
    private readonly LivePatcher _patcher;
    private readonly LockFunctions _functions;
    private readonly LockChecker? _checker;
    private readonly HashSet<ulong> _words = [];
    private readonly int* _waiting;
    private readonly int* _mayWait;

    /// <summary>Puts the functions of spinlocks into an arena; their mode is native.</summary>
    /// <param name="arena">The arena. Spinlocks that are made apart are apart: each has its own sites.</param>
    /// <param name="kind">The kind of its locks.</param>
    /// <param name="host">Who lets waiters sleep; <see cref="SpinLockHost.Threads"/> where <see langword="null"/>.</param>
    /// <param name="options">Options; the defaults where <see langword="null"/>.</param>
    /// <param name="loggerFactory">Where it logs; nowhere where there is none.</param>
    /// <exception cref="PatchException">
    /// The arena is full (PV8001) or disposed of (PV8004); this thread is inside generated code (PV8021).
    /// </exception>
    public SpinLocks(
        CodeArena arena, SpinLockKind kind, SpinLockHost? host = null, SpinLockOptions? options = null,
        ILoggerFactory? loggerFactory = null)
    {
        ArgumentNullException.ThrowIfNull(arena);
        _ = LockCode.Of(kind);
        options ??= new();
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(options.Spins, nameof(options));
        Arena = arena;
        Kind = kind;
        _host = host ?? SpinLockHost.Threads;
        int[] control = GC.AllocateArray<int>(64, pinned: true); // in the middle of it, away from what others write
        s_controls.GetOrCreateValue(arena).Add(control);
        _waiting = (int*)Unsafe.AsPointer(ref control[32]);
        _mayWait = _waiting + 1;
        Layout = LockFunctions.CreateLayout();
        _patcher = new LivePatcher(arena, Layout, loggerFactory);
        _checker = options.Check ? new LockChecker(arena) : null;
        try
        {
            _functions = new LockFunctions(arena, Layout, _host, (ulong)_waiting, options.Spins, _checker);
            _patcher.Switch(
                _functions[kind, SpinLockMode.Native], null,
                new() { Mode = arena.Barrier == BarrierKind.None ? SwitchMode.Quiescent : SwitchMode.Live, WaitForOther = true });
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The arena.</summary>
    public CodeArena Arena { get; }

    /// <summary>The layout of its operations, for a <see cref="SiteEmitter"/> of its own.</summary>
    public OpsLayout Layout { get; }

    /// <summary>Takes the lock whose word rdi points to; destroys rax and flags.</summary>
    public OpSlot Lock => Layout[0];

    /// <summary>Gives the lock back whose word rdi points to; destroys rax and flags.</summary>
    public OpSlot Unlock => Layout[1];

    /// <summary>The kind of its locks.</summary>
    public SpinLockKind Kind { get; private set; }

    /// <summary>The mode it was switched to last.</summary>
    public SpinLockMode Mode { get; private set; }

    /// <summary>How many threads are in the host's wait, or on the way in or out.</summary>
    public int WaiterCount => Volatile.Read(ref *_waiting);

    /// <summary>How often a thread has waited in the host.</summary>
    public long WaitCount => Volatile.Read(ref *(long*)(_mayWait + 1));

    /// <summary>
    /// What checked locks have found, 100 findings at most (PV8070), each with its site and who holds the lock since where. Empty where
    /// nothing is checked.
    /// </summary>
    public IReadOnlyList<PatchDiagnostic> Misuses => _checker?.Found ?? [];

    /// <summary>How much checked locks have found.</summary>
    public long MisuseCount => _checker?.Count ?? 0;

    /// <summary>The patcher of the sites, for tests that do without the protocol of a switch.</summary>
    internal LivePatcher Patcher => _patcher;

    /// <summary>The backends, for the same.</summary>
    internal LockFunctions Functions => _functions;

    /// <summary>Whether a waiter may sleep, for the same.</summary>
    internal bool MayWait
    {
        get => Volatile.Read(ref *_mayWait) != 0;
        set => Interlocked.Exchange(ref *_mayWait, value ? 1 : 0);
    }

    /// <summary>Gives new blocks the bodies of the mode; see <see cref="LivePatcher.Bind"/>.</summary>
    /// <param name="blocks">The blocks of its layout.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public ApplyResult Bind(params IReadOnlyList<CodeBlock> blocks) => _patcher.Bind(blocks);

    /// <summary>Makes a lock known, which a switch to another kind wants of every lock. Its word must be there until it is
    /// removed.</summary>
    /// <param name="word">Address of its word: a multiple of 8, in this process, 8 bytes of zero.</param>
    /// <exception cref="PatchException">It is not aligned, not zero, or known already (PV8071).</exception>
    public void Add(VirtualAddress word)
    {
        lock (_sync)
        {
            string? wrong = word.Value == 0 || word.Value % 8 != 0 ? "is no multiple of 8"
                : _words.Contains(word.Value) ? "is known already"
                : *(ulong*)word.Value != 0 ? "is not zero" : null;
            if (wrong is not null)
            {
                throw new PatchException(
                    PatchDiagnostic.Error(DiagnosticCodes.LockWord, $"the word of a lock {wrong}") with { Address = word });
            }

            _words.Add(word.Value);
        }
    }

    /// <summary>Forgets a lock.</summary>
    /// <param name="word">Address of its word.</param>
    /// <returns>Whether it was known.</returns>
    public bool Remove(VirtualAddress word)
    {
        lock (_sync)
        {
            return _words.Remove(word.Value);
        }
    }

    /// <summary>Switches the mode of all locks, or throws. See <see cref="TrySwitch"/>.</summary>
    /// <param name="mode">The mode.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The switch was refused, taken back or faulted.</exception>
    public ApplyResult Switch(SpinLockMode mode, SwitchOptions? options = null) => Switch(Kind, mode, options);

    /// <summary>Switches kind and mode of all locks, or throws. See <see cref="TrySwitch"/>.</summary>
    /// <param name="kind">The kind.</param>
    /// <param name="mode">The mode.</param>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The switch was refused, taken back or faulted.</exception>
    public ApplyResult Switch(SpinLockKind kind, SpinLockMode mode, SwitchOptions? options = null) =>
        TrySwitch(kind, mode, options, out ApplyResult result) ? result : throw new PatchException(result.Diagnostics[0]);

    /// <summary>
    /// Switches kind and mode of all locks. The mode may be switched live; to be paravirtual while threads may be inside, the arena must
    /// know its executors, for all must have been outside before the first waiter sleeps (else PV8072). The kind is switched at quiescence
    /// only, with every lock made known (<see cref="Add"/>) and free (else PV8073): locks of kinds have nothing in common but that a word
    /// of zero is free.
    /// </summary>
    /// <param name="kind">The kind.</param>
    /// <param name="mode">The mode.</param>
    /// <param name="options">
    /// What is known of other threads, a live switch where <see langword="null"/>. The time limit holds for each of the three steps.
    /// </param>
    /// <param name="result">What was done, or why nothing was.</param>
    /// <returns>Whether every lock and unlock is now of the kind and mode.</returns>
    public bool TrySwitch(SpinLockKind kind, SpinLockMode mode, SwitchOptions? options, out ApplyResult result)
    {
        _ = LockCode.Of(kind);
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)mode, (uint)SpinLockMode.Paravirtual, nameof(mode));
        options ??= new();
        lock (_sync)
        {
            result = CheckSwitch(kind, mode, options) is PatchDiagnostic refusal
                ? new ApplyResult(ApplyStatus.Refused, new ApplyReport($"{kind} {mode}").Add(refusal))
                : Run(kind, mode, options);
            return result.Succeeded;
        }
    }

    /// <summary>Gives the slots up. Sites, locks and those who wait stay as they are.</summary>
    public void Dispose()
    {
        _patcher.Dispose();
        _checker?.Dispose();
    }

    private PatchDiagnostic? CheckSwitch(SpinLockKind kind, SpinLockMode mode, SwitchOptions options) =>
        kind != Kind && options.Mode != SwitchMode.Quiescent
            ? PatchDiagnostic.Error(
                DiagnosticCodes.LocksInUse, "locks can become another kind only while nobody holds them or waits for them") with
            {
                Help = "Switch with SwitchMode.Quiescent.",
            }
            : mode == SpinLockMode.Paravirtual && options.Mode == SwitchMode.Live && !Arena.Executors.IsTracking
            ? PatchDiagnostic.Error(
                DiagnosticCodes.LockWaiters, "nothing tells when the last unlock is done that would not kick a waiter") with
            {
                Help = "Register an executor for each thread, or switch with SwitchMode.Quiescent.",
            }
            : Arena.Executors.InsideOnThisThread() is Executor inside
            ? PatchDiagnostic.Error(
                DiagnosticCodes.InsideGeneratedCode, $"this thread is inside generated code (executor {inside.Name}), perhaps with a lock")
            : null;

    private ApplyResult Run(SpinLockKind kind, SpinLockMode mode, SwitchOptions options)
    {
        // While nobody may sleep, any site may do what either mode says: only an unlock that does not kick and a waiter that sleeps
        // don't go together.
        bool before = MayWait;
        bool mayWaitAfter = before;
        try
        {
            if (WakeAll(options) is PatchDiagnostic asleep)
            {
                return new ApplyResult(ApplyStatus.Refused, new ApplyReport($"{kind} {mode}").Add(asleep));
            }

            Backend old = _functions[Kind, Mode];
            SwitchOptions how = kind == Kind ? options : options with { WhenQuiescent = () => MakeFree(Kind) };
            if (!_patcher.TrySwitch(_functions[kind, mode], null, how, out ApplyResult result))
            {
                mayWaitAfter = before && result.Status != ApplyStatus.Faulted;
                return result;
            }

            if (mode == SpinLockMode.Paravirtual && options.Mode == SwitchMode.Live && AwaitUnlocks(options) is PatchDiagnostic late)
            {
                return TakeBack(old, before, late, out mayWaitAfter);
            }

            (Kind, Mode) = (kind, mode);
            mayWaitAfter = mode == SpinLockMode.Paravirtual;
            return result;
        }
        finally
        {
            MayWait = mayWaitAfter;
        }
    }

    /// <summary>
    /// Goes back, where executors did not leave in time: some may be in unlocks that kick nobody. Where even that fails nobody sleeps any
    /// more, which is right with all sites.
    /// </summary>
    private ApplyResult TakeBack(Backend old, bool before, PatchDiagnostic late, out bool mayWait)
    {
        bool back = _patcher.TrySwitch(old, null, new() { WaitForOther = true }, out ApplyResult failed);
        mayWait = back && before;
        return back ? new ApplyResult(ApplyStatus.RolledBack, new ApplyReport(failed.Target).Add(late)) : failed;
    }

    /// <summary>Lets nobody go to sleep any more, and wakes those who do until none is left.</summary>
    private PatchDiagnostic? WakeAll(SwitchOptions options)
    {
        MayWait = false; // a locked store: whoever is not counted below finds it
        long start = System.Diagnostics.Stopwatch.GetTimestamp();
        var spin = new SpinWait();
        while (WaiterCount != 0)
        {
            _host.WakeAll();
            if (options.Cancellation.IsCancellationRequested || (options.Timeout != Timeout.InfiniteTimeSpan
                && System.Diagnostics.Stopwatch.GetElapsedTime(start) >= options.Timeout))
            {
                return PatchDiagnostic.Error(
                    DiagnosticCodes.LockWaiters, $"threads that wait for locks did not come back from the host \"{_host.Name}\"") with
                {
                    Found = System.FormattableString.Invariant($"{WaiterCount} still waiting"),
                    Help = "The host's wakeAll must let every wait come back; or wait longer (SwitchOptions.Timeout).",
                };
            }

            spin.SpinOnce();
        }

        return null;
    }

    /// <summary>Waits until whoever was inside when the sites had been switched has been outside: no old unlock is under way
    /// then.</summary>
    private PatchDiagnostic? AwaitUnlocks(SwitchOptions options)
    {
        if (!Arena.PatchLock.TryEnter(wait: true, out PatchLock? held, out PatchDiagnostic? busy, options.Cancellation))
        {
            return busy;
        }

        using (held)
        {
            return Arena.Executors.Wait(Arena.Executors.Begin(), options.Timeout, options.Cancellation) ? null
                : PatchDiagnostic.Error(
                    DiagnosticCodes.GraceTimeout, "executors may still be in unlocks that would kick nobody; the mode is what it was") with
                {
                    Help = "Let executors leave or call Safepoint now and then; or wait longer (SwitchOptions.Timeout).",
                };
        }
    }

    /// <summary>At quiescence: makes every lock one that is free in all kinds, or says which is not free.</summary>
    private PatchDiagnostic? MakeFree(SpinLockKind kind)
    {
        LockCode code = LockCode.Of(kind);
        foreach (ulong word in _words)
        {
            if (!code.IsFree(*(ulong*)word))
            {
                return PatchDiagnostic.Error(DiagnosticCodes.LocksInUse, $"a {kind} lock is held while nobody is in generated code") with
                {
                    Address = word,
                    Found = System.FormattableString.Invariant($"0x{*(ulong*)word:x16}"),
                    Help = "A lock that is held across Executor.Leave keeps its kind: release it first.",
                };
            }
        }

        foreach (ulong word in _words)
        {
            *(ulong*)word = 0;
        }

        return null;
    }
}
