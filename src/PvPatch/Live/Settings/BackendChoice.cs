using System.Runtime.CompilerServices;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// Which backend the whole of a layout was switched to last: what sites of variants follow. Changed by every switch of all sites, as if it
/// were named there.
/// </summary>
internal sealed class BackendChoice(string layout) : LiveSetting($"backend of {layout}", None)
{
    /// <summary>Before the first switch.</summary>
    public const long None = -1;

    // By backend; those only that a site or a switch has named, and nobody is kept alive by it: who is gone is not switched to.
    private readonly ConditionalWeakTable<Backend, object> _numbers = [];
    private long _last = None;

    /// <summary>The backend's number.</summary>
    public long NumberOf(Backend backend)
    {
        lock (_numbers)
        {
            return (long)_numbers.GetValue(backend, _ => ++_last);
        }
    }

    internal override string Show(long value)
    {
        foreach ((Backend backend, object number) in _numbers)
        {
            if ((long)number == value)
            {
                return backend.Name;
            }
        }

        return value == None ? "none" : "a backend that is gone";
    }

    internal override PatchDiagnostic? Check(long value) => CheckSites(value);
}

/// <summary>
/// A place at which each backend has code of its own, argument set-up included: the first one's stands there, the others' out of line
/// behind a jump.
/// </summary>
/// <param name="arena">The arena.</param>
/// <param name="choice">The choice it follows.</param>
/// <param name="ways">For each backend's number where its code is, from the arena's start; 0 for what stands in place.</param>
internal sealed class VariantSite(CodeArena arena, BackendChoice choice, Dictionary<long, uint> ways) : SettingSite(arena, choice.Alone)
{
    /// <inheritdoc/>
    public override SiteBytes Decide(VirtualAddress site, int length, out PatchAction action)
    {
        ways.TryGetValue(choice.Pending, out uint way); // before the first switch: what stands in place
        action = way == 0 ? PatchAction.Nop : PatchAction.Jump;
        return BranchCode.TryEncode(site, length, way == 0 ? null : Arena.Address + way, out SiteBytes bytes) ? bytes
            : throw new InvalidOperationException("a variant is in the block of its site");
    }

    /// <inheritdoc/>
    public override PatchDiagnostic? CheckValue(VirtualAddress site, long value) =>
        value == BackendChoice.None || ways.ContainsKey(value) ? null :
        PatchDiagnostic.Error(DiagnosticCodes.SettingValue, $"a site has no variant for the backend \"{choice.Show(value)}\"") with
        {
            Expected = string.Join(", ", ways.Keys.Select(choice.Show)),
            Help = "Give the site code for every backend that is switched to (SiteEmitter.Variants).",
        };

    /// <summary>Such a site before its code has an address.</summary>
    /// <param name="Backends">The backends, in the order of the labels.</param>
    internal sealed record Emitted(Backend[] Backends) : EmittedSetting([])
    {
        /// <inheritdoc/>
        public override SettingSite Place(SlotTable slots, uint[] ways) =>
            new VariantSite(slots.Arena, slots.Choice, new(Backends.Zip(ways, (b, w) => KeyValuePair.Create(slots.Choice.NumberOf(b), w))));
    }
}
