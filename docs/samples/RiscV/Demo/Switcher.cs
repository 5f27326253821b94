using PvPatch.Mechanisms;
using PvPatch.Plans;
using RiscV.Translator;

namespace RiscV.Demo;

/// <summary>A thread that switches a running guest from backend to backend.</summary>
internal sealed class Switcher : IDisposable
{
    private readonly TranslatorEngine _engine;
    private readonly TimeSpan _pause;
    private readonly Thread _thread;
    private readonly List<(double Microseconds, int Sites)> _batches = [];
    private volatile bool _stop;

    public Switcher(TranslatorEngine engine, TimeSpan pause)
    {
        _engine = engine;
        _pause = pause;
        _thread = new Thread(Run) { IsBackground = true, Name = "switcher" };
        _thread.Start();
    }

    public int Switches => _batches.Count;

    /// <summary>Sites written, all switches together.</summary>
    public long SitesWritten => _batches.Sum(static b => (long)b.Sites);

    /// <summary>The median switch: the first ones, cold, build the templates of a backend.</summary>
    public (double Microseconds, int Sites) Median => _batches.OrderBy(static b => b.Microseconds).ElementAt(_batches.Count / 2);

    /// <summary>What went wrong in the thread, if anything did.</summary>
    public Exception? Failure { get; private set; }

    public void Stop()
    {
        _stop = true;
        _thread.Join();
    }

    public void Dispose() => Stop();

    private void Run()
    {
        try
        {
            IReadOnlyList<Backend> all = _engine.Backends.All;
            for (int i = 1; !_stop || _batches.Count == 0; i++)
            {
                ApplyResult result = _engine.Switch(all[i % all.Count]);
                _batches.Add((result.Elapsed.TotalMicroseconds, result.Written));
                Thread.Sleep(_pause);
            }
        }
        catch (Exception e)
        {
            Failure = e;
        }
    }
}
