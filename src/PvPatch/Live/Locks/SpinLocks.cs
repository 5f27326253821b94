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
public sealed unsafe partial class SpinLocks : IDisposable
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

    /// <summary>Gives new blocks the bodies of the mode; see <see cref="Bind"/>.</summary>
    /// <param name="blocks">The blocks of its layout.</param>
    /// <param name="result">What was done, or why nothing was.</param>
    /// <returns>Whether it was done.</returns>
    public bool TryBind(IReadOnlyList<CodeBlock> blocks, out ApplyResult result) => _patcher.TryBind(blocks, out result);

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

    /// <summary>Gives the slots up. Sites, locks and those who wait stay as they are.</summary>
    public void Dispose()
    {
        _patcher.Dispose();
        _checker?.Dispose();
    }
}
