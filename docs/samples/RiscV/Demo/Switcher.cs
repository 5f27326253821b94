using PvPatch.Live;
using PvPatch.Ops;
using RiscV.Translator;

namespace RiscV.Demo;

/// <summary>A thread that switches a running guest from backend to backend.</summary>
internal sealed class Switcher : IDisposable
{
    private readonly TranslatorEngine _engine;
    private readonly TimeSpan _pause;
    private readonly Thread _thread;
    private readonly List<double> _times = [];
    private volatile bool _stop;
    private long _written;

    public Switcher(TranslatorEngine engine, TimeSpan pause)
    {
        _engine = engine;
        _pause = pause;
        _thread = new Thread(Run) { IsBackground = true, Name = "switcher" };
        _thread.Start();
    }

    public int Switches => _times.Count;

    public int MostSites { get; private set; }

    public double MedianMicroseconds => _times.Order().ElementAt(_times.Count / 2);

    public double NanosecondsPerSite => _times.Sum() * 1000 / Math.Max(1, _written);

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
            for (int i = 1; !_stop || _times.Count == 0; i++)
            {
                SwitchResult result = _engine.Switch(all[i % all.Count]);
                _times.Add(result.Elapsed.TotalMicroseconds);
                _written += result.Written;
                MostSites = Math.Max(MostSites, result.Written);
                Thread.Sleep(_pause);
            }
        }
        catch (Exception e)
        {
            Failure = e;
        }
    }
}
