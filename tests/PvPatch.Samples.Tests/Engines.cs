using RiscV.Demo;
using RiscV.Host;
using RiscV.Interpreter;
using RiscV.Translator;

namespace PvPatch.Samples.Tests;

/// <summary>The ways to execute a guest, by name.</summary>
internal static class Engines
{
    public const string Interpreter = "interpreter";

    /// <summary>Instructions a guest may execute at most, so that a wrong branch fails a test and does not hang it.</summary>
    private const long Allowance = 100_000_000;

    public static readonly string[] Backends = ["fast", "checked", "traced", "profiled"];

    public static TheoryData<string> AllNames => [Interpreter, .. Backends];

    public static TheoryData<string> BackendNames => [.. Backends];

    /// <summary>Makes an engine; dispose of it before the guest.</summary>
    public static IEngine Create(string name, Guest guest, IAccessObserver? observer = null)
    {
        if (name == Interpreter)
        {
            return new InterpreterEngine(guest, observer);
        }

        var engine = new TranslatorEngine(guest, observer);
        engine.Switch(engine.Backends.All.Single(b => b.Name == name));
        return engine;
    }

    /// <summary>Runs a program from its beginning.</summary>
    public static RunRecord Run(string name, GuestImage image, IAccessObserver? observer = null, ulong ramSize = Guest.DefaultRamSize)
    {
        using var guest = new Guest(image, ramSize);
        IEngine engine = Create(name, guest, observer);
        using var disposable = (IDisposable)engine;
        return RunRecord.Of(guest, engine, Allowance);
    }
}
