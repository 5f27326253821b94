using System.Diagnostics;

namespace PvPatch.Live;

/// <summary>The executors of an arena: who is inside, whether all have passed a safepoint since, and the gate that keeps them out for a while.</summary>
internal sealed class ExecutorList
{
    private readonly Lock _lock = new();
    private readonly object _gate = new();
    private volatile Executor[] _executors = [];
    private volatile bool _gateIsClosed;

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
        int thread = Environment.CurrentManagedThreadId;
        foreach (Executor executor in _executors)
        {
            if (executor.IsInsideOn(thread))
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
            return new GraceTicket(this, [.. _executors.Select(static e => (Executor: e, e.Counter)).Where(static e => (e.Counter & 1) != 0)]);
        }
    }

    /// <summary>Whether everyone who was inside has left or passed a safepoint.</summary>
    public bool HasPassed(List<(Executor Executor, long Counter)> waitedFor)
    {
        lock (_lock)
        {
            // An executor that is no longer listed has left: it can't be given up inside.
            waitedFor.RemoveAll(w => Array.IndexOf(_executors, w.Executor) < 0 || w.Executor.Counter != w.Counter);
            return waitedFor.Count == 0;
        }
    }

    /// <summary>Keeps executors from entering, and waits until none is inside.</summary>
    /// <param name="barrier">Makes the closed gate seen, and what is written behind it.</param>
    /// <param name="timeout">How long to wait.</param>
    /// <param name="cancellation">Ends the wait.</param>
    /// <param name="inside">Who is still inside, where the time ran out; the gate is open again then.</param>
    public bool TryCloseGate(Func<bool> barrier, TimeSpan timeout, CancellationToken cancellation, out Executor? inside)
    {
        _gateIsClosed = true;
        _ = barrier();
        long start = Stopwatch.GetTimestamp();
        var spin = new SpinWait();
        while ((inside = Inside()) is not null)
        {
            if (Stopwatch.GetElapsedTime(start) >= timeout || cancellation.IsCancellationRequested)
            {
                OpenGate();
                return false;
            }

            spin.SpinOnce();
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

    public void WaitForGate()
    {
        lock (_gate)
        {
            while (_gateIsClosed)
            {
                Monitor.Wait(_gate);
            }
        }
    }
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
            if (!list.IsTracking || cancellation.IsCancellationRequested || Stopwatch.GetElapsedTime(start) >= timeout)
            {
                return false;
            }

            spin.SpinOnce();
        }

        return true;
    }
}
