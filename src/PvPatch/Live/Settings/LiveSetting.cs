using System.Globalization;

namespace PvPatch.Live;

/// <summary>
/// Something that code was emitted to depend on, besides the backend: a <see cref="StaticKey"/>, a <see cref="MultiBranch"/>. Its value
/// stands in the instructions of its sites and nowhere else, so generated code never loads or tests it. Changed by
/// <see cref="LivePatcher.Apply(Action{LiveChanges}, SwitchOptions?)"/>, together with whatever else is in the changes.
/// </summary>
/// <remarks>
/// A setting belongs to the arena whose code first has a site of it, or whose patcher first changes it. It is kept by the code, not by a
/// patcher: any patcher of the arena may change it.
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

    /// <summary>The arena it belongs to; <see langword="null"/> before the first site.</summary>
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

    /// <summary>Its sites, those of retired blocks perhaps too. Under the patch lock.</summary>
    internal IReadOnlyList<LiveSite> Sites => _sites;

    /// <inheritdoc/>
    public override string ToString() => Name;

    /// <summary>A value as a report shows it.</summary>
    internal virtual string Show(long value) => value.ToString(CultureInfo.InvariantCulture);

    /// <summary>Why it can't have a value, if it can't.</summary>
    internal virtual PatchDiagnostic? Check(long value) => null;

    /// <summary>Makes it an arena's, if it is no other's.</summary>
    internal PatchDiagnostic? Claim(CodeArena arena)
    {
        CodeArena? owner = Interlocked.CompareExchange(ref _arena, arena, null);
        return owner is null || ReferenceEquals(owner, arena) ? null : PatchDiagnostic.Error(DiagnosticCodes.SettingArena,
            $"\"{Name}\" belongs to another arena") with
        {
            Help = "Make one for each arena: a batch changes the code of one.",
        };
    }

    /// <summary>Adds a site. Under the patch lock.</summary>
    internal void Add(LiveSite site)
    {
        if (_sites.Count == _sites.Capacity)
        {
            _sites.RemoveAll(static s => s.Block.IsRetired); // before it grows, so that it does so by what is in use
        }

        _sites.Add(site);
    }
}
