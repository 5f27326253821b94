using System.Diagnostics;

namespace PvPatch.Live;

/// <summary>The executors of an arena: who is inside, whether all have passed a safepoint since, and the gate that keeps them out for a while.</summary>
internal sealed class ExecutorList
{
    private readonly Lock _lock = new();
    private readonly object _gate = new();
    private volatile Executor[] _executors = [];
    private volatile bool _gateIsClosed;
    private volatile bool _isClosed; // the gate stays closed for good

    /// <summary>Whether the host has told of any executor, ever. Where it has not, nothing is known of who runs what, and nothing is reused.</summary>
    public bool IsTracking { get; private set; }

    public bool GateIsClosed => _gateIsClosed;

    public Executor Add(string name)
    {
        var executor = new Executor(this, name);
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

    /// <summary>Notes who is inside now. Call behind a barrier, so that whoever enters later sees the new code.</summary>
    public GraceTicket Begin()
    {
        lock (_lock)
        {
            return new GraceTicket(this, [.. _executors.Where(static e => e.IsInside).Select(static e => (Executor: e, e.Counter))]);
        }
    }

    /// <summary>Whether everyone who was inside has left or passed a safepoint.</summary>
    public bool HasPassed(List<(Executor Executor, long Counter)> waitedFor)
    {
        lock (_lock)
        {
            // An executor that is no longer listed has left: it can't be given up inside. One whose thread ended will not come back either.
            waitedFor.RemoveAll(w => Array.IndexOf(_executors, w.Executor) < 0 || w.Executor.Counter != w.Counter || w.Executor.HasEnded);
            return waitedFor.Count == 0;
        }
    }

    /// <summary>Keeps executors from entering, and waits until none is inside.</summary>
    /// <param name="barrier">Makes the closed gate seen, and what is written behind it.</param>
    /// <param name="timeout">How long to wait; <see cref="Timeout.InfiniteTimeSpan"/> for ever.</param>
    /// <param name="cancellation">Ends the wait.</param>
    /// <param name="inside">Who is still inside, where the time ran out; the gate is open again then.</param>
    public bool TryCloseGate(Func<bool> barrier, TimeSpan timeout, CancellationToken cancellation, out Executor? inside)
    {
        _gateIsClosed = true;
        if (!barrier())
        {
            // It stands for a fence in Enter, and this is one too: all that the gate needs. What is written behind the gate has a barrier of its own.
            Interlocked.MemoryBarrierProcessWide();
        }

        long start = Stopwatch.GetTimestamp();
        var spin = new SpinWait();
        while ((inside = Inside()) is not null)
        {
            if (IsOver(start, timeout) || cancellation.IsCancellationRequested)
            {
                OpenGate();
                return false;
            }

            spin.SpinOnce();
        }

        return true;
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
            _isClosed = true;
            Monitor.PulseAll(_gate);
        }

        return true;
    }

    public void OpenGate()
    {
        lock (_gate)
        {
            _gateIsClosed = false;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Waits for the end of a quiescent batch.</summary>
    /// <exception cref="PatchException">The arena was disposed of (PV8004).</exception>
    public void WaitForGate()
    {
        lock (_gate)
        {
            while (_gateIsClosed)
            {
                if (_isClosed)
                {
                    throw new PatchException(ArenaMemory.Disposed());
                }

                Monitor.Wait(_gate);
            }
        }
    }

    /// <summary>Whether a time to wait has passed.</summary>
    internal static bool IsOver(long start, TimeSpan timeout) => timeout != Timeout.InfiniteTimeSpan && Stopwatch.GetElapsedTime(start) >= timeout;
}

/// <summary>A grace period under way: those who were inside when it began.</summary>
internal sealed class GraceTicket(ExecutorList list, List<(Executor Executor, long Counter)> waitedFor)
{
    /// <summary>Whether it is over: never, where the host has told of no executors.</summary>
    public bool IsOver => list.IsTracking && list.HasPassed(waitedFor);

    /// <summary>Waits for the end.</summary>
    public bool Wait(TimeSpan timeout, CancellationToken cancellation)
    {
        long start = Stopwatch.GetTimestamp();
        var spin = new SpinWait();
        while (!IsOver)
        {
            if (!list.IsTracking || cancellation.IsCancellationRequested || ExecutorList.IsOver(start, timeout))
            {
                return false;
            }

            spin.SpinOnce();
        }

        return true;
    }
}
