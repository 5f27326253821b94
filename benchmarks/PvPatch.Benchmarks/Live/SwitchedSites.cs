using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// A function of 256 sites of one class, three backends for it, and a thread that runs it without end and checks what it gives.
/// </summary>
internal sealed unsafe class SwitchedSites : IDisposable
{
    public const int Count = 256;

    /// <summary>Loops in one entry: some microseconds, so that the entry itself does not count.</summary>
    private const int Loops = 64;

    private const int Direct3 = 3;

    private readonly CodeArena _arena = CodeArena.Reserve(size: 16 << 20);
    private readonly CodeBlock _block;
    private readonly Thread _thread;
    private volatile bool _stop;
    private volatile Exception? _fault;
    private long _entries;
    private volatile ThreadClock? _clock;

    /// <param name="kind">The class: of one store, or guarded.</param>
    public SwitchedSites(SiteClass kind)
    {
        Class = kind;
        OpsLayout layout = OpsLayout.Create(b => b.Table("t", t => t.Slot("op", convention: CallConvention.CalleeSave)));
        Patcher = new LivePatcher(_arena, layout);
        var a = new Assembler(64);
        a.mov(eax, Direct3);
        a.ret();
        VirtualAddress callee = _arena.Emit(a, new SiteEmitter(layout)).Address;
        One = Backend.Create("one", layout, b => b.Inline("t.op", static a => a.mov(eax, 1)));
        Two = Backend.Create("two", layout, b => b.Inline("t.op", static a => a.mov(eax, 2)));
        Direct = Backend.Create("direct", layout, b => b.Call("t.op", callee, "callee", RegisterSet.Rax));
        Patcher.Switch(One);
        OpSlot op = layout["t.op"];
        _block = kind == SiteClass.Guarded
            ? SiteFunction.EmitAcrossLines(_arena, op, layout, Count)
            : SiteFunction.Emit(
                _arena, layout, Count, (a, sites) => sites.Emit(a, op, clobbers: RegisterSet.Rax, placement: SitePlacement.InsideAligned8));
        Sites = [.. Enumerable.Range(0, Count).Select(i => _block[i])];
        if (Array.Find(Sites, s => s.Class != kind) is { Block: not null } other)
        {
            throw new InvalidOperationException($"{other}, expected {kind}");
        }

        CheckEach();
        _thread = new Thread(Execute) { IsBackground = true };
        _thread.Start();
        while (_clock is null && _fault is null)
        {
            Thread.Sleep(1);
        }
    }

    public SiteClass Class { get; }

    public LivePatcher Patcher { get; }

    public LiveSite[] Sites { get; }

    /// <summary>One instruction: gives 1.</summary>
    public Backend One { get; }

    /// <summary>One instruction, as long as the other: gives 2.</summary>
    public Backend Two { get; }

    /// <summary>Calls a function that gives 3.</summary>
    public Backend Direct { get; }

    /// <summary>How often the thread has run the function, and nanoseconds of a processor it has had for that.</summary>
    public (long Entries, long ProcessorTime) Done => (Volatile.Read(ref _entries), _clock?.Now ?? 0);

    /// <summary>The thread's clock, once it has one.</summary>
    public ThreadClock? Clock => _clock;

    public void ThrowIfFaulty()
    {
        if (_fault is not null)
        {
            throw new InvalidOperationException("the executor stopped", _fault);
        }
    }

    public void Dispose()
    {
        _stop = true;
        _thread.Join();
        Patcher.Dispose();
        _arena.Dispose();
        ThrowIfFaulty();
    }

    /// <summary>Before anything else runs it, each backend must give its number at every site, by batch and one by one.</summary>
    private void CheckEach()
    {
        foreach ((Backend backend, int value) in new[] { (Two, 2), (Direct, Direct3), (One, 1) })
        {
            Patcher.Switch(backend);
            Figures.Check($"{Class} {backend.Name}", SiteFunction.Run(_block.Address, null, 1), Count * value);
        }

        for (int i = 0; i < Count; i++)
        {
            Patcher.Switch(Direct, SiteScope.Sites(Sites[i]));
            Figures.Check($"{Class} one by one", SiteFunction.Run(_block.Address, null, 1), Count + (i + 1) * (Direct3 - 1));
        }
    }

    private void Execute()
    {
        try
        {
            using Executor executor = Patcher.Arena.RegisterExecutor();
            _clock = new ThreadClock();
            while (!_stop)
            {
                executor.Enter();
                long sum = SiteFunction.Run(_block.Address, null, Loops);
                executor.Leave();
                if (sum is < Count * Loops or > Count * Loops * Direct3)
                {
                    throw new InvalidOperationException($"{Class}: {sum} is none of what the backends give");
                }

                Volatile.Write(ref _entries, _entries + 1);
            }
        }
        catch (InvalidOperationException e)
        {
            _fault = e;
        }
    }
}
