using PvPatch.Ops;

namespace RiscV.Patching;

/// <summary>The four backends over one set of stubs.</summary>
internal sealed class GuestBackends
{
    public GuestBackends(Stubs stubs)
    {
        Fast = FastBackend.Create(stubs);
        Checked = CheckedBackend.Create(Fast, stubs);
        Traced = TracedBackend.Create(Fast, stubs);
        Profiled = ProfiledBackend.Create(Fast, stubs);
        All = [Fast, Checked, Traced, Profiled];
    }

    public Backend Fast { get; }

    public Backend Checked { get; }

    public Backend Traced { get; }

    public Backend Profiled { get; }

    public IReadOnlyList<Backend> All { get; }
}
