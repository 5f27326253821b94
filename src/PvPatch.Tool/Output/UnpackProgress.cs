using System.Diagnostics;
using System.Globalization;
using Spectre.Console;

namespace PvPatch.Tool.Output;

/// <summary>
/// Progress of unpacking on a terminal, shown after half a second. A separate thread draws it, so that its libraries are not loaded for
/// kernels that unpack fast, nor without a terminal.
/// </summary>
internal sealed class UnpackProgress : IProgress<long>, IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromMilliseconds(500);
    private static readonly TimeSpan s_refresh = TimeSpan.FromMilliseconds(100);

    private readonly string _name;
    private readonly long _started = Stopwatch.GetTimestamp();
    private readonly ManualResetEventSlim _done = new();
    private Task? _drawing;
    private long _bytes;

    private UnpackProgress(string name) => _name = name;

    /// <summary>Starts the progress; <see langword="null"/> without a terminal or with JSON output.</summary>
    public static UnpackProgress? Start(string path, ToolRun run) =>
        run.Console.ErrorIsTerminal && !run.IsJson ? new UnpackProgress(Path.GetFileName(path)) : null;

    public void Report(long value)
    {
        Volatile.Write(ref _bytes, value);
        if (_drawing is null && Stopwatch.GetElapsedTime(_started) > s_patience)
        {
            _drawing = Task.Factory.StartNew(Draw, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        }
    }

    public void Dispose()
    {
        _done.Set();
        _drawing?.Wait();
        _done.Dispose();
    }

    private void Draw()
    {
        IAnsiConsole terminal = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(Console.Error) });
        terminal.Status().Start(Text(), status =>
        {
            while (!_done.Wait(s_refresh))
            {
                status.Status = Text();
            }
        });
    }

    private string Text() => string.Create(
        CultureInfo.InvariantCulture, $"Unpacking {Markup.Escape(TextOutput.Clean(_name))}: {Volatile.Read(ref _bytes) >> 20} MiB");
}
