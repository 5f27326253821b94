using PvPatch.Mechanisms;

namespace PvPatch.Records;

/// <summary>
/// What is wanted of recorded sites: a backend for the operations and variants, values for keys, ways for multiway branches, targets for
/// static calls, features for the alternatives. Sites of what is not named stay as they are. The same set as for running code, by name;
/// used inside <see cref="SiteRecords.Plan"/> only.
/// </summary>
public sealed class RecordChanges
{
    internal RecordChanges()
    {
    }

    internal Backend? Backend { get; private set; }

    internal Dictionary<string, bool> Keys { get; } = new(StringComparer.Ordinal);

    internal Dictionary<string, int?> Branches { get; } = new(StringComparer.Ordinal);

    internal Dictionary<string, long> Calls { get; } = new(StringComparer.Ordinal);

    internal HashSet<int>? Features { get; private set; }

    /// <summary>For reports.</summary>
    internal string Description
    {
        get
        {
            IEnumerable<string> names = Keys.Select(static k => $"{k.Key} {(k.Value ? "on" : "off")}")
                .Concat(Branches.Select(static b => $"{b.Key} {(b.Value is int way ? $"way {way}" : "falls through")}"))
                .Concat(Calls.Keys)
                .Concat(Features is null ? [] : ["features"]);
            string all = string.Join(", ", Backend is null ? names : names.Prepend(Backend.Name));
            return all.Length == 0 ? "nothing" : all;
        }
    }

    /// <summary>
    /// Turns operations to a backend, and regions that have a variant of its name to that variant; the others keep what stands there.
    /// </summary>
    /// <param name="backend">The backend.</param>
    /// <returns>This set.</returns>
    public RecordChanges Use(Backend backend)
    {
        ArgumentNullException.ThrowIfNull(backend);
        Backend = backend;
        return this;
    }

    /// <summary>Turns a static key on.</summary>
    /// <param name="key">Its name in the records.</param>
    /// <returns>This set.</returns>
    public RecordChanges Enable(string key) => SetKey(key, value: true);

    /// <summary>Turns a static key off.</summary>
    /// <param name="key">Its name in the records.</param>
    /// <returns>This set.</returns>
    public RecordChanges Disable(string key) => SetKey(key, value: false);

    /// <summary>Chooses the way that the sites of a multiway branch go.</summary>
    /// <param name="branch">Its name in the records.</param>
    /// <param name="way">The way, from 0; <see langword="null"/> where its sites are to fall through.</param>
    /// <returns>This set.</returns>
    public RecordChanges Set(string branch, int? way)
    {
        ArgumentException.ThrowIfNullOrEmpty(branch);
        if (way is int number)
        {
            ArgumentOutOfRangeException.ThrowIfNegative(number, nameof(way));
        }

        Branches[branch] = way;
        return this;
    }

    /// <summary>Gives a static call a target.</summary>
    /// <param name="call">Its name in the records.</param>
    /// <param name="target">Run address of the function; <see langword="null"/> where nothing is to be called.</param>
    /// <returns>This set.</returns>
    public RecordChanges Target(string call, VirtualAddress? target)
    {
        ArgumentException.ThrowIfNullOrEmpty(call);
        long value = target is VirtualAddress address ? unchecked((long)address.Value) : StaticCallCode.Null;
        if (target is not null && value is StaticCallCode.Null or StaticCallCode.Zero)
        {
            throw new ArgumentOutOfRangeException(nameof(target), target, "no code can be there");
        }

        Calls[call] = value;
        return this;
    }

    /// <summary>Makes a static call one that only gives 0.</summary>
    /// <param name="call">Its name in the records.</param>
    /// <returns>This set.</returns>
    public RecordChanges ReturnZero(string call)
    {
        ArgumentException.ThrowIfNullOrEmpty(call);
        Calls[call] = StaticCallCode.Zero;
        return this;
    }

    /// <summary>
    /// Says which processor features there are: each region with replacements gets the last one that applies, and what stood there at first
    /// where none does.
    /// </summary>
    /// <param name="features">The numbers of the features.</param>
    /// <returns>This set.</returns>
    public RecordChanges WithFeatures(params IEnumerable<int> features)
    {
        ArgumentNullException.ThrowIfNull(features);
        Features = [.. features];
        return this;
    }

    private RecordChanges SetKey(string key, bool value)
    {
        ArgumentException.ThrowIfNullOrEmpty(key);
        Keys[key] = value;
        return this;
    }
}
