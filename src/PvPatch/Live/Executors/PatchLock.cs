using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Live;

/// <summary>
/// One patcher at a time in an arena. A second one is refused or waits, as it asks; the same thread again is always refused. So is a thread
/// that would wait for a batch which waits, without a time limit, for that very thread to leave its code: neither would ever go on.
/// </summary>
internal sealed class PatchLock(ExecutorList executors) : IDisposable
{
    // A batch may begin to wait for executors long after another thread began to wait for the batch.
    private static readonly TimeSpan s_lookAgain = TimeSpan.FromMilliseconds(20);

    private readonly object _sync = new();
    private int _owner; // the thread that holds it, 0 for none

    /// <summary>Takes the lock, which is given back by disposing of what is returned.</summary>
    /// <param name="wait">Wait for another thread's batch to end, rather than be refused.</param>
    /// <exception cref="PatchException">PV8020, PV8021.</exception>
    public PatchLock Enter(bool wait) =>
        TryEnter(wait, out PatchLock? held, out PatchDiagnostic? error) ? held : throw new PatchException(error);

    /// <summary>Takes the lock, or says why not.</summary>
    /// <param name="wait">Wait for another thread's batch to end, rather than be refused.</param>
    /// <param name="held">To be disposed of when the batch is over.</param>
    /// <param name="error">PV8020, PV8021.</param>
    /// <param name="cancellation">Ends the wait: PV8020.</param>
    public bool TryEnter(
        bool wait, [NotNullWhen(true)] out PatchLock? held, [NotNullWhen(false)] out PatchDiagnostic? error,
        CancellationToken cancellation = default)
    {
        int thread = Environment.CurrentManagedThreadId;
        lock (_sync)
        {
            error = null;
            while (wait && _owner != 0 && _owner != thread && error is null && !cancellation.IsCancellationRequested)
            {
                if (executors.AwaitedForEver() is Executor inside)
                {
                    error = HoldsItUp(inside);
                }
                else
                {
                    Monitor.Wait(_sync, s_lookAgain);
                }
            }

            if (_owner != 0)
            {
                error ??= Busy(again: _owner == thread);
            }

            held = error is null ? this : null;
            _owner = error is null ? thread : _owner;
            return held is not null;
        }
    }

    /// <summary>Gives the lock back.</summary>
    public void Dispose()
    {
        lock (_sync)
        {
            _owner = 0;
            Monitor.PulseAll(_sync);
        }
    }

    private static PatchDiagnostic Busy(bool again) =>
        PatchDiagnostic.Error(
            DiagnosticCodes.PatcherBusy, again ? "a batch is under way on this very thread" : "another thread's batch is under way") with
        {
            Help = "One batch at a time in an arena: wait for the other, or set SwitchOptions.WaitForOther.",
        };

    private static PatchDiagnostic HoldsItUp(Executor inside) =>
        PatchDiagnostic.Error(
            DiagnosticCodes.InsideGeneratedCode,
            $"this thread is inside generated code (executor {inside.Name}), and the batch under way waits without a time limit until "
                + $"it is not: neither would go on") with
        {
            Help = "Leave the code, or call Executor.Safepoint, and ask again; or give batches a time limit (SwitchOptions.Timeout).",
        };
}
