using System.Diagnostics.CodeAnalysis;
using PvPatch.Live.Platform;
using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Live;

/// <summary>
/// Memory for generated code whose sites can be patched while threads run them: reserved in one piece near what the code calls, committed
/// as it grows, executable in one view and writable in another. Code blocks, slots, thunks and islands live in it. Safe for several
/// threads.
/// </summary>
/// <remarks>
/// Everything in an arena is in rel32 reach of everything else in it. Reserve one at start, 64 to 256 MiB: address space costs nothing.
/// </remarks>
public sealed partial class CodeArena : IDisposable
{
    /// <summary>The largest arena: far enough below 2 GiB that every displacement inside it is in reach.</summary>
    public const long MaxSize = 1L << 30;

    // The arenas in use, of which this keeps none alive: a site can be linked to a block of any of them. Never changed, but replaced.
    private static readonly Lock s_lock = new();
    private static volatile WeakReference<CodeArena>[] s_arenas = [];

    private readonly Lock _lock = new();
    private volatile SlotTable[] _slots = []; // never changed, but replaced: looking one up takes no lock

    private CodeArena(ArenaMemory memory, LivePlatform platform, BarrierKind barrier, NativeCode native, ArenaOptions options)
    {
        Memory = memory;
        Platform = platform;
        Barrier = barrier;
        Native = native;
        TrustsCacheLines = options.TrustCacheLines;
        HasAtomic16 = options.Atomic16 ?? SiteRecord.HasAtomic16;
        Executors = new ExecutorList(() => Array.ForEach(_slots, static s => s.Patcher?.ApplyRequestsAtSafepoint()));
        PatchLock = new PatchLock(Executors);
        Registry = new BlockRegistry(this);
        Ledger = new LinkLedger(this);
        var stubs = new StubAllocator(memory);
        Islands = new IslandStore(memory, stubs);
        Functions = new FunctionStore(memory, stubs, options.SaveVectorState ? options.VectorSave ?? VectorSave.Current : default);
        Arguments = new ArgumentStubs(memory, stubs);
        lock (s_lock)
        {
            s_arenas = [.. s_arenas.Where(static a => a.TryGetTarget(out _)), new WeakReference<CodeArena>(this)];
        }
    }

    /// <summary>Run address of the first byte.</summary>
    public VirtualAddress Address => Memory.Start;

    /// <summary>Bytes reserved.</summary>
    public long Size => Memory.Size;

    /// <summary>Bytes in use.</summary>
    public long Used => Memory.Used;

    /// <summary>Bytes the system has been asked for.</summary>
    public long Committed => Memory.Committed;

    /// <summary>The barrier there is.</summary>
    public BarrierKind Barrier { get; }

    /// <summary>
    /// Whether code pages are writable where they run: only where <see cref="ArenaProtection.WritableAndExecutable"/> was asked for.
    /// </summary>
    public bool IsWritableAndExecutable => Memory.IsWritableAndExecutable;

    /// <summary>
    /// Whether executors can have their words behind the gs base: on Linux, where processor and kernel let a thread set it
    /// (<c>wrgsbase</c>). On Windows gs is the system's.
    /// </summary>
    public bool CanSetGsBase => Native.SwapGsBase.Value != 0;

    /// <summary>Whether every byte of the arena is in rel32 reach of an address.</summary>
    /// <param name="address">The address.</param>
    /// <returns>Whether direct calls reach it from everywhere in the arena.</returns>
    public bool Reaches(VirtualAddress address)
    {
        // Seen from the ends of instructions, which lie behind the first byte and not behind the last.
        long first = address - Address;
        long last = address - (Address + Size);
        return first == (int)first && last == (int)last;
    }

    internal ArenaMemory Memory { get; }

    internal LivePlatform Platform { get; }

    internal NativeCode Native { get; }

    internal ExecutorList Executors { get; }

    internal BlockRegistry Registry { get; }

    internal LinkLedger Ledger { get; }

    internal IslandStore Islands { get; }

    internal FunctionStore Functions { get; }

    internal ArgumentStubs Arguments { get; }

    internal PatchLock PatchLock { get; }

    internal bool TrustsCacheLines { get; }

    internal bool HasAtomic16 { get; }

    /// <summary>Reserves an arena, or throws. See <see cref="TryReserve"/>.</summary>
    /// <param name="near">
    /// An address the arena shall be near to: what its code calls most. See <see cref="ArenaOptions.MustReach"/>.
    /// </param>
    /// <param name="size">Bytes, rounded up to 64 KiB; at most <see cref="MaxSize"/>.</param>
    /// <param name="options">What else there is to say.</param>
    /// <returns>The arena.</returns>
    /// <exception cref="PatchException">
    /// No room in reach where that is a must (PV8002), refused by the system (PV8003), not available here (PV8006).
    /// </exception>
    public static CodeArena Reserve(VirtualAddress? near = null, long size = 64 << 20, ArenaOptions? options = null) =>
        TryReserve(near, size, options, out CodeArena? arena, out PatchDiagnostic? error) ? arena : throw new PatchException(error);

    /// <summary>Reserves an arena.</summary>
    /// <param name="near">
    /// An address the arena shall be near to: what its code calls most. See <see cref="ArenaOptions.MustReach"/>.
    /// </param>
    /// <param name="size">Bytes, rounded up to 64 KiB; at most <see cref="MaxSize"/>.</param>
    /// <param name="options">What else there is to say; the defaults where <see langword="null"/>.</param>
    /// <param name="arena">The arena.</param>
    /// <param name="error">
    /// No room in reach where that is a must (PV8002), refused by the system (PV8003), not available here (PV8006).
    /// </param>
    /// <returns>Whether there is an arena.</returns>
    public static bool TryReserve(
        VirtualAddress? near, long size, ArenaOptions? options, [NotNullWhen(true)] out CodeArena? arena,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(size);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(size, MaxSize);
        options ??= new ArenaOptions();
        arena = null;
        LivePlatform platform;
        try
        {
            platform = options.Platform ?? LivePlatform.Current;
        }
        catch (PatchException e)
        {
            error = e.Diagnostic;
            return false;
        }

        long rounded = size + platform.Granularity - 1 & -platform.Granularity;
        if (!platform.TryReserve(near, rounded, options, out CodeMapping? mapping, out error!))
        {
            return false;
        }

        var memory = new ArenaMemory(platform, mapping!);
        BarrierKind barrier = platform.PrepareBarrier();
        if (!NativeCode.TryCreate(memory, platform, barrier, out NativeCode? native, out error!))
        {
            memory.Dispose();
            return false;
        }

        arena = new CodeArena(memory, platform, barrier, native!, options);
        error = null;
        return true;
    }

    /// <summary>The slots of a layout in this arena; made when first asked for.</summary>
    /// <param name="layout">The layout.</param>
    /// <returns>The slots, holding a trap until a backend is switched to.</returns>
    /// <exception cref="PatchException">No room (PV8001) or disposed (PV8004).</exception>
    public SlotTable SlotsOf(OpsLayout layout)
    {
        ArgumentNullException.ThrowIfNull(layout);
        using ArenaMemory.Usage usage = Memory.Use();
        if (Find(layout) is SlotTable known)
        {
            return known;
        }

        lock (_lock)
        {
            if (Find(layout) is SlotTable slots)
            {
                return slots;
            }

            // On a line of their own: what is called most shares it with nothing that is written.
            int traps = NativeCode.SlotTrapsLength(layout.Count);
            if (!Memory.TryTakeCode(traps, SiteRecord.LineSize, out VirtualAddress trap, out bool reused, out PatchDiagnostic? error))
            {
                throw new PatchException(error!);
            }

            if (!Memory.TryTakeData(Math.Max(1, layout.Count) * 8L, SiteRecord.LineSize, out VirtualAddress address, out error))
            {
                Memory.GiveCode(trap, traps, wereRun: false);
                throw new PatchException(error!);
            }

            NativeCode.WriteSlotTraps(Memory.Span(trap, traps));
            if (reused)
            {
                _ = RunBarrier();
            }

            slots = new SlotTable(this, layout, address, trap);
            _slots = [.. _slots, slots];
            return slots;
        }
    }

    /// <summary>
    /// Declares a thread that runs code of this arena. A host that declares any declares every one, before it first enters.
    /// </summary>
    /// <param name="name">A name for reports.</param>
    /// <param name="words">
    /// The layout of its words, made for this arena, which begin as zero; <see langword="null"/> for an executor without.
    /// </param>
    /// <returns>The executor, outside.</returns>
    /// <exception cref="ArgumentException">The words were laid out for another arena.</exception>
    /// <exception cref="PatchException">The arena was disposed of (PV8004).</exception>
    public Executor RegisterExecutor(string name = "executor", ExecutorWords? words = null)
    {
        ArgumentNullException.ThrowIfNull(name);
        CheckUsable();
        return words is null || ReferenceEquals(words.Arena, this)
            ? Executors.Add(name, words)
            : throw new ArgumentException("the words were laid out for another arena", nameof(words));
    }

    /// <summary>
    /// Gives the memory back to the system, as soon as calls of other threads that read or write it are over. Nothing may run in it any
    /// more. Of an arena that nobody disposes of and nobody refers to, descriptor and write view come back by themselves; the code stays
    /// mapped, for a thread may be running it.
    /// </summary>
    /// <exception cref="PatchException">An executor is inside (PV8005); the arena stays as it is.</exception>
    public void Dispose()
    {
        if (Memory.IsDisposed)
        {
            return;
        }

        using (PatchLock.Enter(wait: true))
        {
            if (Memory.IsDisposed)
            {
                return;
            }

            if (!Executors.TryCloseForGood(RunBarrier, out Executor? inside))
            {
                throw new PatchException(PatchDiagnostic.Error(
                    DiagnosticCodes.ArenaInUse, $"the arena is disposed of while executor {inside!.Name} is inside its code") with
                {
                    Address = Address,
                    Help = "Stop the executors first; the arena was left as it is.",
                });
            }

            lock (s_lock)
            {
                s_arenas = [.. s_arenas.Where(a => a.TryGetTarget(out CodeArena? other) && other != this)];
            }

            Memory.Dispose();
        }
    }

    /// <summary>The sum of a number over all arenas of the process.</summary>
    internal static long SumOverAll(Func<CodeArena, long> of) => s_arenas.Sum(a => a.TryGetTarget(out CodeArena? arena) ? of(arena) : 0);

    /// <summary>The block at an address, whichever arena of the process it is in. Takes no lock.</summary>
    internal static bool TryFindInAll(VirtualAddress address, [NotNullWhen(true)] out CodeBlock? block)
    {
        foreach (WeakReference<CodeArena> reference in s_arenas)
        {
            if (reference.TryGetTarget(out CodeArena? arena) && arena.Registry.TryFind(address, out block))
            {
                return true;
            }
        }

        block = null;
        return false;
    }

    /// <summary>Whether an address in an arena of the process is code in use there; nothing where it is in none.</summary>
    internal static bool? IsCodeInUse(VirtualAddress address)
    {
        foreach (WeakReference<CodeArena> reference in s_arenas)
        {
            if (reference.TryGetTarget(out CodeArena? arena) && !arena.Memory.IsDisposed && arena.Memory.Contains(address, 1))
            {
                return arena.Memory.IsCodeInUse(address);
            }
        }

        return null;
    }

    internal void CheckUsable()
    {
        if (Memory.IsDisposed)
        {
            throw new PatchException(ArenaMemory.Disposed());
        }
    }

    /// <summary>Makes what was written visible as code to every thread.</summary>
    internal bool RunBarrier()
    {
        if (!Platform.TryBarrier(Barrier))
        {
            return false;
        }

        LiveEvents.Barrier(Barrier);
        return true;
    }

    internal ReadOnlySpan<SlotTable> SlotTables => _slots;

    private SlotTable? Find(OpsLayout layout) => Array.Find(_slots, s => ReferenceEquals(s.Layout, layout));
}
