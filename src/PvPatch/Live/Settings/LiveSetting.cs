using System.Globalization;

namespace PvPatch.Live;

/// <summary>
/// Something that code was emitted to depend on, besides the backend: a <see cref="StaticKey"/>, a <see cref="MultiBranch"/>, a
/// <see cref="StaticCall"/>, a <see cref="CodeConstant"/>. Its value stands in the instructions of its sites, so generated code never loads
/// or tests it. Changed by
/// <see cref="LivePatcher.Apply(Action{LiveChanges}, SwitchOptions?)"/>, together with whatever else is in the changes.
/// </summary>
/// <remarks>
/// A setting belongs to the arena whose code first has a site of it, or whose patcher first changes it; not by a plan, and not by what is
/// refused. It is kept by the code, not by a patcher: any patcher of the arena may change it.
/// </remarks>
public abstract class LiveSetting
{
    private readonly List<LiveSite> _sites = []; // of retired blocks too, until there are many; under the patch lock
    private CodeArena? _arena;
    private long _value;

    private protected LiveSetting(string name, long value)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(name);
        Name = name;
        Pending = _value = value;
    }

    /// <summary>A name for reports and plans.</summary>
    public string Name { get; }

    /// <summary>The arena it belongs to; <see langword="null"/> before its first site and its first change.</summary>
    public CodeArena? Arena => Volatile.Read(ref _arena);

    /// <summary>What its sites do. Changed under the patch lock, when all of them are written.</summary>
    internal long Value
    {
        get => Volatile.Read(ref _value);
        set
        {
            Volatile.Write(ref _value, value);
            Pending = value;
        }
    }

    /// <summary>What its sites will do: other than <see cref="Value"/> only while a batch is being decided.</summary>
    internal long Pending { get; set; }

    /// <summary>Whether the batch that is being decided changes it.</summary>
    internal bool IsChanging { get; set; }

    /// <summary>It alone: what most of its sites follow, kept once for all of them.</summary>
    internal LiveSetting[] Alone => field ??= [this];

    /// <summary>Its sites, those of retired blocks perhaps too. Under the patch lock.</summary>
    internal List<LiveSite> Sites => _sites;

    /// <inheritdoc/>
    public override string ToString() => Name;

    /// <summary>A value as a report shows it.</summary>
    internal virtual string Show(long value) => value.ToString(CultureInfo.InvariantCulture);

    /// <summary>Why it can't have a value, if it can't.</summary>
    internal virtual PatchDiagnostic? Check(long value) => null;

    /// <summary>Whether it may be an arena's: it is no other's.</summary>
    internal PatchDiagnostic? CheckArena(CodeArena arena) => Foreign(Arena, arena);

    /// <summary>Adds a site. Under the patch lock.</summary>
    internal void Add(LiveSite site)
    {
        if (_sites.Count == _sites.Capacity)
        {
            // Before it grows, so that it does so by what is in use; by half at least, so that this is not done again at the next site.
            _sites.RemoveAll(static s => s.Block.IsRetired);
            _sites.EnsureCapacity(_sites.Count + _sites.Count / 2 + 1);
        }

        _sites.Add(site);
    }

    /// <summary>Why one of its sites can't follow it to a value, if one can't.</summary>
    private protected PatchDiagnostic? CheckSites(long value)
    {
        foreach (LiveSite site in _sites)
        {
            if (!site.Block.IsRetired && site.Block.SettingOf(site.Index)?.CheckValue(site.Address, value) is PatchDiagnostic error)
            {
                return error with { Address = site.Address, SiteIndex = site.Index };
            }
        }

        return null;
    }

    private PatchDiagnostic? Foreign(CodeArena? owner, CodeArena arena) =>
        owner is null || ReferenceEquals(owner, arena) ? null : PatchDiagnostic.Error(DiagnosticCodes.SettingArena,
            $"\"{Name}\" belongs to another arena") with
        {
            Help = "Make one for each arena: a batch changes the code of one.",
        };

    /// <summary>
    /// The settings that a batch or a block makes its arena's: for good when it is done, not at all where it is refused. Under the arena's
    /// patch lock.
    /// </summary>
    internal sealed class Claims(CodeArena arena)
    {
        private readonly List<LiveSetting> _new = []; // nobody's before

        /// <summary>Makes a setting the arena's, if it is no other's.</summary>
        public PatchDiagnostic? Add(LiveSetting setting)
        {
            CodeArena? owner = setting.Arena; // most are the arena's already
            owner ??= Interlocked.CompareExchange(ref setting._arena, arena, null);
            if (owner is null)
            {
                _new.Add(setting);
            }

            return setting.Foreign(owner, arena);
        }

        /// <summary>They stay the arena's.</summary>
        public void Keep() => _new.Clear();

        /// <summary>Those that were not kept are nobody's again.</summary>
        public void Release()
        {
            _new.ForEach(static s => Volatile.Write(ref s._arena, null));
            _new.Clear();
        }
    }
}
