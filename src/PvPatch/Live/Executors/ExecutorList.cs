using System.Diagnostics;

namespace PvPatch.Live;

/// <summary>
/// The executors of an arena: who is inside, whether all have passed a safepoint since, and the gate that keeps them out for a while.
/// </summary>
internal sealed class ExecutorList(Action? applyRequests = null)
{
    private readonly Lock _lock = new();
    private readonly object _gate = new();
    private volatile Executor[] _executors = [];
    private volatile GateState _gateState; // one store: who finds the gate closed also finds for how long
    private volatile bool _hasRequests;
    private volatile GracePeriod? _awaitedForEver; // until it is over

    /// <summary>
    /// Whether the host has told of any executor, ever. Where it has not, nothing is known of who runs what, and nothing is reused.
    /// </summary>
    public bool IsTracking { get; private set; }

    public bool GateIsClosed => _gateState != GateState.Open;

    /// <summary>Whether links were requested that no safepoint has looked for yet.</summary>
    public bool HasRequests
    {
        get => _hasRequests;
        set => _hasRequests = value;
    }

    public Executor Add(string name, ExecutorWords? words = null)
    {
        var executor = new Executor(this, name, words);
        lock (_lock)
        {
            _executors = [.. _executors, executor];
            IsTracking = true;
        }

        return executor;
    }

    public void Remove(Executor executor)
    {
        lock (_lock)
        {
            _executors = [.. _executors.Where(e => e != executor)];
        }
    }

    public bool Contains(Executor executor) => Array.IndexOf(_executors, executor) >= 0;

    /// <summary>An executor that is inside; <see langword="null"/> where there is none.</summary>
    public Executor? Inside()
    {
        lock (_lock)
        {
            return Array.Find(_executors, static e => e.IsInside);
        }
    }

    /// <summary>The executor the calling thread is inside with.</summary>
    public Executor? InsideOnThisThread()
    {
        foreach (Executor executor in _executors)
        {
            if (executor.IsInsideOnThisThread)
            {
                return executor;
            }
        }

        return null;
    }

    /// <summary>Makes the links that were requested, on a thread at a safepoint.</summary>
    public void ApplyRequests()
    {
        if (InsideOnThisThread() is null) // it may be inside with another executor, in the very site
        {
            _hasRequests = false; // first: what is requested from now on is for the next safepoint
            applyRequests?.Invoke();
        }
    }

    /// <summary>
    /// The executor this thread is inside with, if a batch waits for it, and without a time limit. Such a thread must not wait for the
    /// batch in turn.
    /// </summary>
    public Executor? AwaitedForEver()
    {
        GracePeriod? period = _awaitedForEver;
        bool gateWaits = _gateState == GateState.WaitsForEver;
        return period is null && !gateWaits
            ? null
            : Array.Find(_executors, e => e.IsInsideOnThisThread && (gateWaits || period?.WaitsFor(e) == true));
    }

    /// <summary>
    /// Begins a grace period for those who are inside now. Call behind a barrier, so that whoever enters later sees the new code.
    /// </summary>
    public GracePeriod Begin()
    {
        lock (_lock)
        {
            return new GracePeriod(this, [.. _executors.Where(static e => e.IsInside).Select(static e => (e, e.Counter))]);
        }
    }

    /// <summary>Waits for the end of a grace period.</summary>
    /// <param name="period">The grace period.</param>
    /// <param name="timeout">How long; <see cref="Timeout.InfiniteTimeSpan"/> for ever.</param>
    /// <param name="cancellation">Ends the wait.</param>
    /// <returns>Whether it is over. It never is where the host has told of no executors, and that is not waited for.</returns>
    public bool Wait(GracePeriod period, TimeSpan timeout, CancellationToken cancellation)
    {
        _awaitedForEver = timeout == Timeout.InfiniteTimeSpan ? period : null;
        try
        {
            return WaitUntil(() => period.IsOver || !IsTracking, timeout, cancellation) && IsTracking;
        }
        finally
        {
            _awaitedForEver = null;
        }
    }

    /// <summary>Keeps executors from entering, and waits until none is inside.</summary>
    /// <param name="barrier">Makes the closed gate seen, and what is written behind it.</param>
    /// <param name="timeout">How long to wait; <see cref="Timeout.InfiniteTimeSpan"/> for ever.</param>
    /// <param name="cancellation">Ends the wait.</param>
    /// <param name="inside">Who is still inside, where the time ran out; the gate is open again then.</param>
    public bool TryCloseGate(Func<bool> barrier, TimeSpan timeout, CancellationToken cancellation, out Executor? inside)
    {
        // Closed, then the barrier, then a look at who is inside: in this order, which Executor.Enter relies on.
        _gateState = timeout == Timeout.InfiniteTimeSpan ? GateState.WaitsForEver : GateState.Closed;
        bool nobody = false;
        try
        {
            if (!barrier())
            {
                // It stands for a fence in Enter, and this is one too: all that the gate needs. What is written behind the gate has a
                // barrier of its own.
                Interlocked.MemoryBarrierProcessWide();
            }

            Executor? last = null;
            nobody = WaitUntil(() => (last = Inside()) is null, timeout, cancellation);
            inside = last;
            return nobody;
        }
        finally
        {
            if (nobody)
            {
                _gateState = GateState.Closed;
            }
            else
            {
                OpenGate();
            }
        }
    }

    /// <summary>Keeps executors from entering for good; what enters from now on finds the arena disposed of.</summary>
    /// <param name="barrier">Makes the closed gate seen.</param>
    /// <param name="inside">Who is inside; the gate is open again then.</param>
    public bool TryCloseForGood(Func<bool> barrier, out Executor? inside)
    {
        // Who has met the closed gate on its way in is inside for a moment, until it has seen it.
        if (!TryCloseGate(barrier, TimeSpan.FromMilliseconds(20), CancellationToken.None, out inside))
        {
            return false;
        }

        lock (_gate)
        {
            _gateState = GateState.ClosedForGood;
            Monitor.PulseAll(_gate);
        }

        return true;
    }

    public void OpenGate()
    {
        lock (_gate)
        {
            _gateState = GateState.Open;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Waits for the end of a quiescent batch, on the way in.</summary>
    /// <param name="executor">Who wants to enter.</param>
    /// <exception cref="PatchException">
    /// The arena was disposed of (PV8004); the thread is inside with another executor, for which the batch waits without a time limit
    /// (PV8007).
    /// </exception>
    public void WaitForGate(Executor executor)
    {
        lock (_gate)
        {
            while (GateIsClosed)
            {
                if (_gateState == GateState.ClosedForGood)
                {
                    throw new PatchException(ArenaMemory.Disposed());
                }

                if (AwaitedForEver() is Executor inside)
                {
                    throw Executor.Misuse(
                        $"executor {executor.Name} is entered on a thread that is inside with executor {inside.Name}, and a batch "
                        + $"waits until it is not");
                }

                Monitor.Wait(_gate);
            }
        }
    }

    private static bool WaitUntil(Func<bool> over, TimeSpan timeout, CancellationToken cancellation)
    {
        long start = Stopwatch.GetTimestamp();
        var spin = new SpinWait();
        while (!over())
        {
            if (cancellation.IsCancellationRequested || (timeout != Timeout.InfiniteTimeSpan && Stopwatch.GetElapsedTime(start) >= timeout))
            {
                return false;
            }

            spin.SpinOnce();
        }

        return true;
    }

    private enum GateState
    {
        Open,

        /// <summary>Until a batch is over that waits for nobody, or for a limited time.</summary>
        Closed,

        /// <summary>A batch waits until nobody is inside, without a time limit.</summary>
        WaitsForEver,

        /// <summary>The arena was disposed of.</summary>
        ClosedForGood,
    }
}

/// <summary>A grace period: over when everyone who was inside when it began has left or passed a safepoint.</summary>
internal sealed class GracePeriod(ExecutorList list, List<(Executor Executor, long Counter)> waitedFor)
{
    /// <summary>Whether it is over: never, where the host has told of no executors.</summary>
    public bool IsOver
    {
        get
        {
            lock (waitedFor)
            {
                // An executor that is no longer listed has left: it can't be given up inside. One whose thread ended will not come back
                // either.
                waitedFor.RemoveAll(w => !list.Contains(w.Executor) || w.Executor.Counter != w.Counter || w.Executor.HasEnded);
                return list.IsTracking && waitedFor.Count == 0;
            }
        }
    }

    /// <summary>Whether it is not over yet because of an executor.</summary>
    public bool WaitsFor(Executor executor)
    {
        lock (waitedFor)
        {
            return waitedFor.Exists(w => w.Executor == executor && w.Counter == executor.Counter);
        }
    }
}
