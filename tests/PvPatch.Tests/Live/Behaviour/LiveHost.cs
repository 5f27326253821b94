using PvPatch.Live;
using PvPatch.Live.Platform;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Live.Behaviour;

/// <summary>What is known of other threads, and how bodies are put in place.</summary>
internal enum Mode
{
    Live,
    Quiescent,
    QuiescentInPlace,
    Offline,
}

/// <summary>What became of a batch, for tests that look at behaviour.</summary>
internal sealed record Done(bool Applied, bool TakenBack, string? Code, int Barriers, BarrierKind Barrier, int Written, string Text)
{
    public override string ToString() => Text;
}

/// <summary>
/// An arena, a patcher and helpers. Every call of <see cref="LivePatcher"/> that the tests of this folder make stands here, so that a
/// change of its verbs touches one file.
/// </summary>
internal sealed class LiveHost : IDisposable
{
    private readonly LivePatcher _patcher;

    public LiveHost(
        LivePlatform? platform = null, bool? atomic16 = null, long size = 1 << 20, bool writable = false, OpsLayout? layout = null)
    {
        Layout = layout ?? OpsLayout.Create(b => b.Table("t", t => t.Slot("a").Slot("b")));
        Arena = CodeArena.Reserve(size: size, options: new ArenaOptions
        {
            Platform = platform,
            Atomic16 = atomic16,
            Protection = writable ? ArenaProtection.WritableAndExecutable : ArenaProtection.DualMapped,
            SaveVectorState = false, // so that there are functions no thunk can serve
        });
        _patcher = new LivePatcher(Arena, Layout);
        Backends = new HostBackends(this);
    }

    public OpsLayout Layout { get; }

    public CodeArena Arena { get; }

    public HostBackends Backends { get; }

    public Backend? Current => _patcher.Current;

    public Done Switch(Backend backend, Mode mode = Mode.Live, TimeSpan? timeout = null, CancellationToken cancellation = default)
    {
        _patcher.TrySwitch(backend, null, Options(mode, timeout, cancellation), out ApplyResult result);
        return From(result);
    }

    public void SwitchOrThrow(Backend backend) => _patcher.Switch(backend, null, Options(Mode.Live));

    public Done SwitchSlot(int slot, Backend backend, Mode mode = Mode.Live) =>
        Try(() => _patcher.Switch(backend, SiteScope.Slot(Layout[slot]), Options(mode)));

    public Done SwitchSites(IReadOnlyList<LiveSite> sites, Backend backend, Mode mode = Mode.Live) =>
        Try(() => _patcher.Switch(backend, SiteScope.Sites(sites), Options(mode)));

    public Done Bind(params IReadOnlyList<CodeBlock> blocks) => Try(() => _patcher.Bind(blocks));

    public Done Link(LiveSite site, VirtualAddress target, RegisterSet? destroys = null, Mode mode = Mode.Live) =>
        Try(() => _patcher.Link([new SiteLink(site, target, destroys)], Options(mode)));

    public Done Unlink(LiveSite site, Mode mode = Mode.Live) => Try(() => _patcher.Unlink(SiteScope.Sites(site), Options(mode)));

    public Done UnlinkFrom(CodeBlock block, Mode mode = Mode.Live) =>
        Try(() => _patcher.Unlink(SiteScope.LinkedInto(block), Options(mode)));

    public Done Revert(Mode mode = Mode.Live) => Try(() => _patcher.Revert(null, Options(mode)));

    public Done Retire(params CodeBlock[] blocks) => TryArena(() => Arena.Retire(blocks));

    public void DisposePatcher() => _patcher.Dispose();

    public void Dispose()
    {
        _patcher.Dispose();
        try
        {
            Arena.Dispose();
        }
        catch (PatchException e) when (e.Diagnostic.Code == DiagnosticCodes.ArenaInUse)
        {
            // An assertion failed while a thread was inside: that says more than this.
        }
    }

    /// <summary>An operation that throws, as a result.</summary>
    public static Done TryArena(Action action)
    {
        try
        {
            action();
            return new Done(true, false, null, 0, BarrierKind.None, 0, "applied");
        }
        catch (PatchException e)
        {
            return Refused(e);
        }
    }

    private static SwitchOptions Options(Mode mode, TimeSpan? timeout = null, CancellationToken cancellation = default) => new()
    {
        Mode = mode switch { Mode.Live => SwitchMode.Live, Mode.Offline => SwitchMode.NotEntered, _ => SwitchMode.Quiescent },
        InPlace = mode == Mode.QuiescentInPlace,
        WaitForOther = true,
        Timeout = timeout ?? TimeSpan.FromSeconds(30),
        Cancellation = cancellation,
    };

    private static Done Try(Func<ApplyResult> action)
    {
        try
        {
            return From(action());
        }
        catch (PatchException e)
        {
            return Refused(e);
        }
    }

    private static Done Refused(PatchException e) => new(false, false, e.Diagnostic.Code, 0, BarrierKind.None, 0, e.Message);

    private static Done From(ApplyResult result) => new(
        result.Succeeded,
        result.Status == ApplyStatus.RolledBack,
        result.Succeeded ? null : result.Diagnostics[0].Code,
        result.Barriers,
        result.Barrier,
        result.Written,
        $"{result}{(result.Succeeded ? "" : $": {result.Diagnostics[0]}")}");
}
