using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// What a site is whose bytes follow from settings: which ones, and where it leads for each of their values. Made when its block gets an
/// address, and never changed.
/// </summary>
internal sealed class SettingSite
{
    private readonly CodeArena _arena;
    private readonly LiveSetting[] _settings; // one, but for sites of several keys
    private readonly uint[] _ways; // from the arena's start; 0 (which is never code of a block) where control falls through

    public SettingSite(CodeArena arena, LiveSetting[] settings, uint[] ways)
    {
        _arena = arena;
        _settings = settings;
        _ways = ways;
    }

    /// <summary>What it depends on.</summary>
    public ReadOnlySpan<LiveSetting> Settings => _settings;

    /// <summary>For reports.</summary>
    public string Name => _settings.Length == 1 ? _settings[0].Name : string.Join('+', _settings.Select(static s => s.Name));

    /// <summary>
    /// Where it leads when its settings have the values that are pending: the label, or nothing. See the table at
    /// <see cref="BranchCode"/>.
    /// </summary>
    public VirtualAddress? Way()
    {
        long way = _settings[0].Pending;
        if (_settings[0] is StaticKey)
        {
            way = 0;
            for (int i = 0; i < _settings.Length; i++)
            {
                way |= _settings[i].Pending > 0 ? 1L << i : 0;
            }
        }

        return way == MultiBranch.Nowhere || _ways[way] == 0 ? null : _arena.Address + _ways[way];
    }

    /// <summary>Decides what the site holds when its settings have the values that are pending.</summary>
    /// <param name="site">Its run address.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <param name="action">What that is.</param>
    /// <param name="bytes">The bytes.</param>
    /// <returns>Whether everything is in reach.</returns>
    public bool TryDecide(VirtualAddress site, int length, out PatchAction action, out SiteBytes bytes)
    {
        VirtualAddress? way = Way();
        action = way is null ? PatchAction.Nop : PatchAction.Jump;
        return BranchCode.TryEncode(site, length, way, out bytes);
    }

    /// <summary>Whether all its ways are in reach.</summary>
    public PatchDiagnostic? CheckReach(VirtualAddress site, int length)
    {
        foreach (uint way in _ways)
        {
            if (way != 0 && !BranchCode.TryEncode(site, length, _arena.Address + way, out _))
            {
                return PatchDiagnostic.Error(DiagnosticCodes.BranchReach, $"a label of \"{Name}\" is out of reach of its site") with
                {
                    Address = site,
                    Found = $"{_arena.Address + way}, {_arena.Address + way - (site + length)} bytes from the site's end",
                    Expected = $"-128 to 127 for a site of {length} bytes",
                    Help = $"Give the site {BranchCode.NearLength} bytes.",
                };
            }
        }

        return null;
    }
}

/// <summary>A <see cref="SettingSite"/> before its labels have addresses.</summary>
/// <param name="Settings">What it depends on.</param>
/// <param name="Labels">Iced's numbers of the labels; 0 where control falls through.</param>
internal sealed record EmittedSetting(LiveSetting[] Settings, ulong[] Labels)
{
    /// <summary>The site, now that there are addresses.</summary>
    /// <param name="arena">The arena.</param>
    /// <param name="start">Where the code begins, from the arena's start.</param>
    /// <param name="placed">The instruction behind each label.</param>
    /// <param name="labels">Where instructions are.</param>
    public SettingSite Place(CodeArena arena, uint start, Dictionary<ulong, int> placed, CodeLabels labels) =>
        new(arena, Settings, Array.ConvertAll(Labels, l => l == 0 ? 0 : start + (uint)labels.OffsetOf(placed[l])));
}
