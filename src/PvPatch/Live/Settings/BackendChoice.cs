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

    private readonly List<Backend> _backends = []; // by value; those only that a site or a switch has named

    /// <summary>The backend's number.</summary>
    public long NumberOf(Backend backend)
    {
        lock (_backends)
        {
            int number = _backends.IndexOf(backend);
            if (number < 0)
            {
                number = _backends.Count;
                _backends.Add(backend);
            }

            return number;
        }
    }

    internal override string Show(long value)
    {
        lock (_backends)
        {
            return value == None ? "none" : _backends[(int)value].Name;
        }
    }

    internal override PatchDiagnostic? Check(long value)
    {
        foreach (LiveSite site in Sites)
        {
            if (!site.Block.IsRetired && site.Block.SettingOf(site.Index)?.CheckValue(value) is PatchDiagnostic error)
            {
                return error with { Address = site.Address, SiteIndex = site.Index };
            }
        }

        return null;
    }
}

/// <summary>
/// A place at which each backend has code of its own, argument set-up included: the first one's stands there, the others' out of line
/// behind a jump.
/// </summary>
/// <param name="arena">The arena.</param>
/// <param name="choice">The choice it follows.</param>
/// <param name="ways">For each backend's number where its code is, from the arena's start; 0 for what stands in place.</param>
internal sealed class VariantSite(CodeArena arena, BackendChoice choice, Dictionary<long, uint> ways) : SettingSite(arena, [choice])
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
    public override PatchDiagnostic? CheckValue(long value) => value == BackendChoice.None || ways.ContainsKey(value) ? null :
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
