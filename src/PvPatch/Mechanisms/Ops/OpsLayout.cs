using System.Collections;
using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Mechanisms;

/// <summary>The order of all slots; a slot's place in it is the type number its sites carry. Immutable.</summary>
public sealed class OpsLayout : IReadOnlyList<OpSlot>
{
    private readonly OpSlot[] _slots;
    private readonly Dictionary<string, OpSlot> _byName;

    internal OpsLayout(string name, List<OpsTable> tables)
    {
        Name = name;
        Tables = tables.AsReadOnly();
        _slots = [.. tables.SelectMany(static t => t.Slots)];
        Slots = Array.AsReadOnly(_slots);
        _byName = _slots.ToDictionary(static s => s.Name, StringComparer.Ordinal);
    }

    /// <summary>The layout without slots, of code that has sites of other kinds only.</summary>
    internal static OpsLayout Empty { get; } = new("none", []);

    /// <summary>A name for reports.</summary>
    public string Name { get; }

    /// <summary>The tables in order.</summary>
    public IReadOnlyList<OpsTable> Tables { get; }

    /// <summary>All slots in order.</summary>
    public IReadOnlyList<OpSlot> Slots { get; }

    /// <summary>How many slots there are.</summary>
    public int Count => _slots.Length;

    /// <summary>The slot with a type number.</summary>
    /// <param name="index">0 to <see cref="Count"/> - 1.</param>
    /// <returns>The slot.</returns>
    public OpSlot this[int index] => _slots[index];

    /// <summary>The slot with a full name.</summary>
    /// <param name="name">For example <c>irq.irq_disable</c>.</param>
    /// <returns>The slot.</returns>
    /// <exception cref="PatchException">There is none (PV2001); the diagnostic suggests the nearest name.</exception>
    public OpSlot this[string name] =>
        TryGetSlot(name, out OpSlot? slot, out PatchDiagnostic? error) ? slot : throw new PatchException(error);

    /// <summary>Makes a layout.</summary>
    /// <param name="build">Names its tables and slots in order.</param>
    /// <param name="name">A name for reports.</param>
    /// <returns>The layout.</returns>
    /// <exception cref="PatchException">A table or slot name occurs twice (PV2003).</exception>
    public static OpsLayout Create(Action<OpsLayoutBuilder> build, string name = "ops")
    {
        ArgumentNullException.ThrowIfNull(build);
        var builder = new OpsLayoutBuilder(name);
        build(builder);
        return builder.Build();
    }

    /// <summary>Enumerates the slots in order.</summary>
    /// <returns>The enumerator.</returns>
    public IEnumerator<OpSlot> GetEnumerator() => Slots.GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    /// <summary>Whether there is a slot of a full name.</summary>
    /// <param name="name">For example <c>irq.irq_disable</c>.</param>
    /// <returns>Whether there is one.</returns>
    public bool HasSlot(string name) => _byName.ContainsKey(name);

    /// <summary>Finds a slot by its full name.</summary>
    internal bool TryGetSlot(string name, [NotNullWhen(true)] out OpSlot? slot) => _byName.TryGetValue(name, out slot);

    /// <summary>Finds a slot by its full name, or says which name was meant.</summary>
    /// <param name="name">For example <c>irq.irq_disable</c>.</param>
    /// <param name="slot">The slot.</param>
    /// <param name="error">PV2001 with the nearest name.</param>
    /// <returns>Whether there is one.</returns>
    public bool TryGetSlot(string name, [NotNullWhen(true)] out OpSlot? slot, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentNullException.ThrowIfNull(name);
        error = null;
        if (_byName.TryGetValue(name, out slot))
        {
            return true;
        }

        error = PatchDiagnostic.Error(DiagnosticCodes.UnknownSlot, $"there is no slot \"{name}\" in the layout {Name}") with
        {
            Help = NameSuggestion.Help(name, _byName.Keys),
        };
        return false;
    }

    /// <inheritdoc/>
    public override string ToString() => $"{Name}: {Count} slots";
}
