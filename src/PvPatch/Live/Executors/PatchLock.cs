namespace PvPatch.Live;

/// <summary>One patcher at a time in an arena. A second one is refused or waits, as it asks; the same thread again is always refused.</summary>
internal sealed class PatchLock
{
    private readonly object _sync = new();
    private int _owner; // the thread that holds it, 0 for none

    /// <summary>Takes the lock.</summary>
    /// <param name="wait">Wait for another thread's batch to end, rather than be refused.</param>
    /// <exception cref="PatchException">PV8020.</exception>
    public Held Enter(bool wait) => TryEnter(wait, out Held held, out PatchDiagnostic? error) ? held : throw new PatchException(error!);

    public bool TryEnter(bool wait, out Held held, out PatchDiagnostic? error)
    {
        int thread = Environment.CurrentManagedThreadId;
        held = default;
        error = null;
        lock (_sync)
        {
            while (wait && _owner != 0 && _owner != thread)
            {
                Monitor.Wait(_sync);
            }

            if (_owner == 0)
            {
                _owner = thread;
                held = new Held(this);
                return true;
            }

            bool again = _owner == thread;
            error = PatchDiagnostic.Error(DiagnosticCodes.PatcherBusy, again ? "a batch is under way on this very thread" : "another thread's batch is under way") with
            {
                Help = "One batch at a time in an arena: wait for the other, or set SwitchOptions.WaitForOther.",
            };
            return false;
        }
    }

    private void Leave()
    {
        lock (_sync)
        {
            _owner = 0;
            Monitor.PulseAll(_sync);
        }
    }

    public readonly struct Held(PatchLock? taken) : IDisposable
    {
        public void Dispose() => taken?.Leave();
    }
}
