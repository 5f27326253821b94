using System.Runtime.InteropServices;

namespace PvPatch.Tool;

/// <summary>
/// Turns the signals that ask a process to end (Ctrl-C, SIGTERM, a terminal that is closed) into a cancellation, so that programs are
/// stopped and nothing half-written stays. The second one ends the process at once; temporary files go all the same.
/// </summary>
internal sealed class Interruption : IDisposable
{
    private static readonly PosixSignal[] s_endings = [PosixSignal.SIGINT, PosixSignal.SIGTERM, PosixSignal.SIGHUP, PosixSignal.SIGQUIT];

    private readonly CancellationTokenSource _source = new();
    private readonly PosixSignalRegistration[] _signals;

    public Interruption() =>
        _signals = [.. s_endings.Select(s => PosixSignalRegistration.Create(s, OnSignal))];

    public CancellationToken Token => _source.Token;

    public void Dispose()
    {
        Array.ForEach(_signals, static s => s.Dispose());
        _source.Dispose();
    }

    private void OnSignal(PosixSignalContext context)
    {
        if (!_source.IsCancellationRequested)
        {
            context.Cancel = true; // do not end the process; the command ends by itself
            _source.Cancel();
            return;
        }

        TemporaryFiles.DeleteAll();
    }
}
