using System.Globalization;
using PvPatch.Mechanisms;

namespace PvPatch.Live;

/// <summary>
/// What is wanted of a patcher's sites and slots: a set of settings, each with its scope. Written, checked and applied together, all or
/// nothing. Where two settings are about
/// one site or slot, the later one counts, but that links outlive switches as <see cref="SwitchOptions.OverridesLinks"/> says.
/// </summary>
/// <remarks>
/// Made by <see cref="LivePatcher.Plan"/> and <see cref="LivePatcher.Apply(Action{LiveChanges}, SwitchOptions?)"/>, and used inside their
/// delegates only.
/// </remarks>
public sealed class LiveChanges
{
    private const int NamesShown = 8;

    private readonly List<LiveChange> _list = [];
    private readonly List<SettingChange> _settings = [];

    internal LiveChanges()
    {
    }

    /// <summary>What is wanted of operations' sites and slots.</summary>
    internal List<LiveChange> List => _list;

    /// <summary>What is wanted of settings, in order. Kept apart, as plain data: there may be thousands, and none names a site.</summary>
    internal List<SettingChange> Settings => _settings;

    /// <summary>Whether nothing but new blocks are bound.</summary>
    internal bool OnlyBinds => _settings.Count == 0 && _list.Count > 0 && _list.TrueForAll(static c => c.Kind == ChangeKind.Bind);

    /// <summary>For reports.</summary>
    internal string Description
    {
        get
        {
            int count = _list.Count + _settings.Count;
            string rest = count > NamesShown ? string.Create(CultureInfo.InvariantCulture, $" and {count - NamesShown} more") : "";
            return count switch
            {
                0 => "nothing",
                1 => _list.Count == 1 ? _list[0].Name : _settings[0].Name,
                _ => string.Join(", ", Names.Take(NamesShown)) + rest,
            };
        }
    }

    private IEnumerable<string> Names => _list.Select(static c => c.Name).Concat(_settings.Select(static s => s.Name));

    /// <summary>
    /// Switches sites to a backend. With all sites or a slot in the scope, slots get its functions, and sites that are linked keep their
    /// targets. Otherwise slots stay as they
    /// are: a site that can't do the operation without its slot is refused then (PV8034), unless its slot is switched to the backend.
    /// </summary>
    /// <param name="backend">The backend, made for the patcher's layout.</param>
    /// <param name="scope">The sites and slots; all where <see langword="null"/>.</param>
    /// <returns>This set.</returns>
    public LiveChanges Use(Backend backend, SiteScope? scope = null)
    {
        ArgumentNullException.ThrowIfNull(backend);
        return Add(new LiveChange(ChangeKind.Use, scope ?? SiteScope.All) { Backend = backend });
    }

    /// <summary>
    /// Gives each of some sites a target of its own: a direct call, or a direct jump where the slot is a jump slot. For chaining blocks and
    /// for inline caches, where thousands of
    /// sites of one operation each lead elsewhere and the slot holds what finds the target.
    /// </summary>
    /// <param name="links">
    /// Sites and targets; a site without a target is unlinked. Where a site is named twice, the later one counts.
    /// </param>
    /// <returns>This set.</returns>
    public LiveChanges Link(params IReadOnlyList<SiteLink> links)
    {
        ArgumentNullException.ThrowIfNull(links);
        return Add(new LiveChange(ChangeKind.Link, SiteScope.All) { Links = links });
    }

    /// <summary>
    /// Lets sites do again what their slots are switched to. Where nothing was switched to yet, they get the bytes they were emitted with.
    /// </summary>
    /// <param name="scope">The sites, linked or not.</param>
    /// <returns>This set.</returns>
    public LiveChanges Unlink(SiteScope scope)
    {
        ArgumentNullException.ThrowIfNull(scope);
        return Add(new LiveChange(ChangeKind.Unlink, scope));
    }

    /// <summary>
    /// Gives new blocks the bodies of what their slots are switched to. Links are kept; sites of slots that nothing was switched to stay as
    /// they are. So do sites that could not be
    /// changed live afterwards, for they do the right thing through their slot, unless the changes are applied at quiescence.
    /// </summary>
    /// <param name="blocks">The blocks.</param>
    /// <returns>This set.</returns>
    public LiveChanges Bind(params IReadOnlyList<CodeBlock> blocks)
    {
        ArgumentNullException.ThrowIfNull(blocks);
        return Add(new LiveChange(ChangeKind.Bind, SiteScope.Blocks(blocks)));
    }

    /// <summary>
    /// Gives sites the bytes they were emitted with, bit for bit, linked ones too, which are linked no more. Slots go on holding their
    /// functions.
    /// </summary>
    /// <param name="scope">The sites; all where <see langword="null"/>.</param>
    /// <returns>This set.</returns>
    public LiveChanges Revert(SiteScope? scope = null) => Add(new LiveChange(ChangeKind.Revert, scope ?? SiteScope.All));

    /// <summary>Enables a key once more. It is on until it was disabled as often.</summary>
    /// <param name="key">A key of the patcher's arena.</param>
    /// <returns>This set.</returns>
    public LiveChanges Enable(StaticKey key) => Set(key, 1, isStep: true);

    /// <summary>Disables a key once, which was enabled before (else PV8038).</summary>
    /// <param name="key">A key of the patcher's arena.</param>
    /// <returns>This set.</returns>
    public LiveChanges Disable(StaticKey key) => Set(key, -1, isStep: true);

    /// <summary>Chooses the way that the sites of a branch go.</summary>
    /// <param name="branch">A branch of the patcher's arena.</param>
    /// <param name="way">The way, from 0; <see langword="null"/> where its sites are to fall through.</param>
    /// <returns>This set.</returns>
    public LiveChanges Set(MultiBranch branch, int? way)
    {
        ArgumentNullException.ThrowIfNull(branch);
        branch.CheckWay(way);
        return Set(branch, way ?? MultiBranch.Nowhere, isStep: false);
    }

    /// <summary>Gives a constant another value.</summary>
    /// <param name="constant">A constant of the patcher's arena.</param>
    /// <param name="value">The value. Where a site's field can't have it, the changes are refused (PV8039).</param>
    /// <returns>This set.</returns>
    public LiveChanges Set(CodeConstant constant, long value) => Set(constant, value, isStep: false);

    /// <summary>Gives a static call another target.</summary>
    /// <param name="call">A call of the patcher's arena.</param>
    /// <param name="target">
    /// Run address of the function, anywhere in the process; <see langword="null"/> where nothing is to be called.
    /// </param>
    /// <returns>This set.</returns>
    public LiveChanges Target(StaticCall call, VirtualAddress? target)
    {
        ArgumentNullException.ThrowIfNull(call);
        if (target is VirtualAddress address && StaticCall.CodeOf((long)address.Value) is null)
        {
            throw new ArgumentOutOfRangeException(nameof(target), target, "no code can be there");
        }

        return Set(call, target is VirtualAddress code ? (long)code.Value : StaticCallCode.Null, isStep: false);
    }

    /// <summary>Makes a static call one that only gives 0.</summary>
    /// <param name="call">A call of the patcher's arena.</param>
    /// <returns>This set.</returns>
    public LiveChanges ReturnZero(StaticCall call) => Set(call, StaticCallCode.Zero, isStep: false);

    private LiveChanges Set(LiveSetting setting, long value, bool isStep)
    {
        ArgumentNullException.ThrowIfNull(setting);
        _settings.Add(new SettingChange(setting, value, isStep));
        return this;
    }

    private LiveChanges Add(LiveChange change)
    {
        change.Order = _list.Count;
        _list.Add(change);
        return this;
    }
}

/// <summary>What a change makes of the sites in its scope.</summary>
internal enum ChangeKind
{
    Use,
    Link,
    Unlink,
    Bind,
    Revert,
}

/// <summary>Another value of a setting.</summary>
/// <param name="Setting">The setting.</param>
/// <param name="Value">The value, or what is added to it.</param>
/// <param name="IsStep">Whether the value is added to what there is.</param>
internal readonly record struct SettingChange(LiveSetting Setting, long Value, bool IsStep)
{
    public string Name => Setting is StaticKey ? $"{Setting} {(Value > 0 ? "enabled" : "disabled")}" : $"{Setting} = {Setting.Show(Value)}";
}

/// <summary>One wish for sites and slots, and its scope.</summary>
internal sealed class LiveChange(ChangeKind kind, SiteScope scope)
{
    public ChangeKind Kind { get; } = kind;

    public SiteScope Scope { get; } = scope;

    /// <summary>Its place in the set.</summary>
    public int Order { get; set; }

    public Backend? Backend { get; init; }

    /// <summary>The backend in the arena. Set by the patcher.</summary>
    public BackendBinding? Binding { get; set; }

    public IReadOnlyList<SiteLink> Links { get; init; } = [];

    /// <summary>Whether slots get functions.</summary>
    public bool SetsSlots => Kind == ChangeKind.Use && Scope.HasSlots;

    public string Name => Kind switch
    {
        ChangeKind.Use => Scope.IsAll ? Backend!.Name : $"{Scope} of {Backend!.Name}",
        ChangeKind.Link => "links",
        ChangeKind.Unlink => "unlinked",
        ChangeKind.Bind => "new blocks",
        _ => "original",
    };
}
