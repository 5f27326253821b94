using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using PvPatch.Live;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using RiscV.Host;
using RiscV.Patching;

namespace RiscV.Translator;

/// <summary>
/// Executes the guest by translating it, region by region, as it comes to them. One thread executes; any other may call <see
/// cref="Switch"/> meanwhile.
/// </summary>
internal sealed unsafe class TranslatorEngine : IEngine, IDisposable
{
    private readonly CpuState* _cpu;
    private readonly Stubs _stubs;
    private readonly RegionTranslator _translator;
    private readonly LinkTable _links;
    private readonly Dictionary<CodeBlock, TranslatedRegion> _regions = [];
    private readonly Executor _executor;
    private GCHandle _handle;
    private ExceptionDispatchInfo? _failure;

    /// <summary>Makes an engine.</summary>
    /// <param name="guest">What it executes.</param>
    /// <param name="observer">Told of accesses while the backend is <c>traced</c>.</param>
    /// <param name="patchable">
    /// Whether loads, stores and the timer are sites. Else the code has the instructions of <c>fast</c> for good, as if there were no other
    /// backend: what sites cost is measured against that.
    /// </param>
    /// <param name="shift">
    /// Bytes before the code of each region, which nobody executes: how fast a loop is depends on where in a line it comes to lie, by some
    /// percent, and must not be taken for what is in it.
    /// </param>
    public TranslatorEngine(Guest guest, IAccessObserver? observer = null, bool patchable = true, int shift = 0)
    {
        if (!OperatingSystem.IsLinux() || RuntimeInformation.ProcessArchitecture != Architecture.X64)
        {
            throw new PlatformNotSupportedException("the translator emits x86-64 code for the System V calling convention");
        }

        _cpu = guest.Cpu;
        Observer = observer;
        Arena = CodeArena.Reserve(size: 64 << 20);
        Patcher = new LivePatcher(Arena, GuestOps.Layout);
        _stubs = new Stubs(Arena, new RegisterMap(_cpu));
        Backends = new GuestBackends(_stubs);
        _links = new LinkTable(_cpu, _stubs.UntranslatedWord);
        _translator = new RegionTranslator(Arena, _stubs, _cpu, patchable, shift);
        _executor = Arena.RegisterExecutor("guest");
        _handle = GCHandle.Alloc(this);
        _cpu->Engine = GCHandle.ToIntPtr(_handle);
        Switch(Backends.Fast);
    }

    public CodeArena Arena { get; }

    public LivePatcher Patcher { get; }

    public GuestBackends Backends { get; }

    public IAccessObserver? Observer { get; }

    public BlockProfile Profile { get; } = new();

    /// <summary>Regions translated so far.</summary>
    public int RegionCount { get; private set; }

    /// <summary>The engine that executes a processor.</summary>
    public static TranslatorEngine Of(CpuState* cpu) => (TranslatorEngine)GCHandle.FromIntPtr(cpu->Engine).Target!;

    /// <summary>
    /// Switches to a backend, from any thread, also while the guest runs in the code that is changed. Regions translated later get it too.
    /// </summary>
    public ApplyResult Switch(Backend backend) => Patcher.Switch(backend, options: new SwitchOptions { WaitForOther = true });

    public void Execute()
    {
        var enter = (delegate* unmanaged<CpuState*, ulong, void>)_stubs.Enter.Value;
        do
        {
            if (!TryFindBlock(_cpu->Pc, out ulong block))
            {
                _cpu->Stop = StopReason.FetchFault;
                return;
            }

            _cpu->Stop = StopReason.None;

            // Inside means: may be in any block, so none is reused. Translating happens outside.
            _executor.Enter();
            enter(_cpu, block);
            _executor.Leave();
            ThrowFailure();
            if (_cpu->Stop == StopReason.CodeChanged)
            {
                RetireChangedRegions();
            }
        }
        while (_cpu->Stop is StopReason.Untranslated or StopReason.CodeChanged);
        if (_cpu->Stop != StopReason.OutOfTicks)
        {
            // Stopped within a block, which was paid for as a whole at its head: what was not executed is given back.
            SitePoint point = PointAt(_cpu->Site);
            _cpu->Pc = point.Pc;
            _cpu->TicksLeft += point.NotExecuted;
        }
    }

    /// <summary>
    /// Which guest instruction a call was made for, by the return address it left: that names the site, whatever backend made the call.
    /// </summary>
    public SitePoint PointAt(ulong returnAddress) => Arena.TryFindCaller(returnAddress, out LiveSite site)
        ? _regions[site.Block].Points[site.Index]
        : throw new ArgumentException("no site returns there", nameof(returnAddress));

    /// <summary>Keeps an exception until the guest has been left, which happens at the next block's head.</summary>
    public void Fail(Exception exception)
    {
        _failure ??= ExceptionDispatchInfo.Capture(exception);
        _cpu->TicksLeft = -1;
    }

    public void Dispose()
    {
        _executor.Dispose();
        Patcher.Dispose();
        Arena.Dispose();
        _handle.Free();
    }

    private void ThrowFailure()
    {
        if (_failure is ExceptionDispatchInfo failure)
        {
            _failure = null;
            failure.Throw();
        }
    }

    /// <summary>
    /// The guest has written code. First nothing leads into an old region any more, then it is retired: the arena reuses it when every
    /// executor has left, as this one has.
    /// </summary>
    private void RetireChangedRegions()
    {
        TranslatedRegion[] changed = [.. _regions.Values.Where(r => !_translator.IsCurrent(r))];
        foreach (TranslatedRegion region in changed)
        {
            _links.Remove(region);
            _regions.Remove(region.Code);
        }

        Arena.Retire([.. changed.Select(static r => r.Code)]);
    }

    private bool TryFindBlock(ulong pc, out ulong block)
    {
        if (!_links.TryGet(pc, out block))
        {
            return false;
        }

        if (block == 0)
        {
            TranslatedRegion region = _translator.Translate(pc);

            // New code calls through its slots until it is bound: correct already, but not fast.
            Patcher.Bind(region.Code);
            _regions.Add(region.Code, region);
            _links.Add(region);
            RegionCount++;
            return _links.TryGet(pc, out block);
        }

        return true;
    }
}
