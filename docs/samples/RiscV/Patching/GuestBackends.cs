using PvPatch.Mechanisms;

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
        Indirect = Fast.Derive("indirect", b =>
        {
            foreach (string slot in GuestOps.Accesses.Select(GuestOps.SlotName))
            {
                b.Set(slot, Fast[slot].LeftAloneByBackend());
            }
        });
        All = [Fast, Checked, Traced, Profiled];
    }

    public Backend Fast { get; }

    public Backend Checked { get; }

    public Backend Traced { get; }

    public Backend Profiled { get; }

    /// <summary>
    /// <c>fast</c>, but loads and stores stay calls through their slots, as they were emitted: what patching them is worth. Not one of the
    /// four.
    /// </summary>
    public Backend Indirect { get; }

    public IReadOnlyList<Backend> All { get; }
}
