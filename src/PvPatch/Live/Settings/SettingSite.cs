using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// What a site is whose bytes follow from settings: which ones, and what it holds for each of their values. Made when its block gets an
/// address, and never changed.
/// </summary>
internal abstract class SettingSite
{
    private readonly LiveSetting[] _settings; // one, but for sites of several keys

    protected SettingSite(CodeArena arena, LiveSetting[] settings)
    {
        Arena = arena;
        _settings = settings;
    }

    /// <summary>What it depends on.</summary>
    public ReadOnlySpan<LiveSetting> Settings => _settings;

    /// <summary>For reports.</summary>
    public string Name => _settings.Length == 1 ? _settings[0].Name : string.Join('+', _settings.Select(static s => s.Name));

    protected CodeArena Arena { get; }

    /// <summary>Decides what the site holds when its settings have the values that are pending. Always in reach.</summary>
    /// <param name="site">Its run address.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <param name="action">What that is.</param>
    public abstract SiteBytes Decide(VirtualAddress site, int length, out PatchAction action);

    /// <summary>Whether all it may lead to is in reach.</summary>
    public virtual PatchDiagnostic? CheckReach(VirtualAddress site, int length) => null;

    /// <summary>Whether it can follow its setting, of which it has one, to a value.</summary>
    /// <param name="site">Its run address.</param>
    /// <param name="value">The value.</param>
    public virtual PatchDiagnostic? CheckValue(VirtualAddress site, long value) => null;
}

/// <summary>A <see cref="SettingSite"/> before its code has an address.</summary>
/// <param name="Settings">What it depends on.</param>
internal abstract record EmittedSetting(LiveSetting[] Settings)
{
    /// <summary>Iced's numbers of the labels it may lead to; 0 where control falls through.</summary>
    public ulong[] Labels { get; init; } = [];

    /// <summary>The site, now that there are addresses.</summary>
    /// <param name="slots">The slots of its emitter's layout in the arena.</param>
    /// <param name="ways">For each label where it is, from the arena's start; 0 where control falls through.</param>
    public abstract SettingSite Place(SlotTable slots, uint[] ways);
}

/// <summary>A branch on keys or a multiway branch; see the tables at <see cref="BranchCode"/>.</summary>
internal sealed class BranchSite(CodeArena arena, LiveSetting[] settings, uint[] ways) : SettingSite(arena, settings)
{
    /// <inheritdoc/>
    public override SiteBytes Decide(VirtualAddress site, int length, out PatchAction action)
    {
        long number = Settings[0].Pending;
        if (Settings[0] is StaticKey)
        {
            number = 0;
            for (int i = 0; i < Settings.Length; i++)
            {
                number |= Settings[i].Pending > 0 ? 1L << i : 0;
            }
        }

        uint way = number == MultiBranch.Nowhere ? 0 : ways[number];
        action = way == 0 ? PatchAction.Nop : PatchAction.Jump;
        return Encode(site, length, way) is SiteBytes bytes ? bytes
            : throw new InvalidOperationException($"the reach of every way of \"{Name}\" is checked when its block is made");
    }

    /// <inheritdoc/>
    public override PatchDiagnostic? CheckReach(VirtualAddress site, int length)
    {
        foreach (uint way in ways)
        {
            if (Encode(site, length, way) is null)
            {
                return PatchDiagnostic.Error(DiagnosticCodes.BranchReach, $"a label of \"{Name}\" is out of reach of its site") with
                {
                    Address = site,
                    Found = $"{Arena.Address + way}, {Arena.Address + way - (site + length)} bytes from the site's end",
                    Expected = $"-128 to 127 for a site of {length} bytes",
                    Help = $"Give the site {BranchCode.NearLength} bytes.",
                };
            }
        }

        return null;
    }

    // 0 is never code of a block: the arena's own comes first.
    private SiteBytes? Encode(VirtualAddress site, int length, uint way) =>
        BranchCode.TryEncode(site, length, way == 0 ? null : Arena.Address + way, out SiteBytes bytes) ? bytes : null;

    /// <summary>Such a site before its code has an address.</summary>
    internal sealed record Emitted(LiveSetting[] Settings) : EmittedSetting(Settings)
    {
        /// <inheritdoc/>
        public override SettingSite Place(SlotTable slots, uint[] ways) => new BranchSite(slots.Arena, Settings, ways);
    }
}

/// <summary>A site of a static call; see the table at <see cref="StaticCallCode"/>.</summary>
internal sealed class StaticCallSite(CodeArena arena, StaticCall call, StaticCallForm form, ConditionCode condition)
    : SettingSite(arena, call.Alone)
{
    /// <inheritdoc/>
    public override SiteBytes Decide(VirtualAddress site, int length, out PatchAction action)
    {
        long target = call.Pending;
        VirtualAddress entry = target switch
        {
            StaticCallCode.Null => Arena.Native.Return,
            StaticCallCode.Zero => Arena.Native.ReturnZero,
            _ when Arena.Reaches((ulong)target) => (ulong)target,
            _ => Arena.Functions.FarOf((ulong)target), // made when the target was set
        };
        return StaticCallCode.TryEncode(form, condition, site, target, entry, out action, out SiteBytes bytes) ? bytes
            : throw new InvalidOperationException($"\"{call.Name}\" leads to {entry}, which is in reach of the whole arena");
    }

    /// <inheritdoc/>
    public override PatchDiagnostic? CheckValue(VirtualAddress site, long value) =>
        form != StaticCallForm.Entry || StaticCall.CodeOf(value) != site ? null :
            PatchDiagnostic.Error(DiagnosticCodes.SettingValue, $"the entry of \"{call.Name}\" would lead to itself, for ever") with
            {
                Help = "Give the call no target: then the function behind the entry runs.",
            };

    /// <summary>Such a site before its code has an address.</summary>
    internal sealed record Emitted(StaticCall Call, StaticCallForm Form, ConditionCode Condition) : EmittedSetting(Call.Alone)
    {
        /// <inheritdoc/>
        public override SettingSite Place(SlotTable slots, uint[] ways) => new StaticCallSite(slots.Arena, Call, Form, Condition);
    }
}

/// <summary>An instruction with a field that follows a constant; see <see cref="ConstantCode"/>.</summary>
internal sealed class ConstantSite(CodeArena arena, CodeConstant constant, ConstantCode code) : SettingSite(arena, constant.Alone)
{
    /// <inheritdoc/>
    public override SiteBytes Decide(VirtualAddress site, int length, out PatchAction action)
    {
        action = PatchAction.Constant;
        return code.With(constant.Pending);
    }

    /// <inheritdoc/>
    public override PatchDiagnostic? CheckValue(VirtualAddress site, long value) =>
        code.Fits(value) ? null : CodeConstant.Unfit(constant.Name, value, code.Least, code.Most);

    /// <summary>Such a site before its code has an address.</summary>
    internal sealed record Emitted(CodeConstant Constant, ConstantCode Code) : EmittedSetting(Constant.Alone)
    {
        /// <inheritdoc/>
        public override SettingSite Place(SlotTable slots, uint[] ways) => new ConstantSite(slots.Arena, Constant, Code);
    }
}
