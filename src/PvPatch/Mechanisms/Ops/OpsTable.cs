using System.Collections;

namespace PvPatch.Mechanisms;

/// <summary>A named group of slots that follow one another in a layout, such as <c>irq</c>.</summary>
public sealed class OpsTable : IReadOnlyList<OpSlot>
{
    internal OpsTable(string name, OpSlot[] slots)
    {
        Name = name;
        Slots = Array.AsReadOnly(slots);
    }

    /// <summary>The table's name.</summary>
    public string Name { get; }

    /// <summary>Its slots in order.</summary>
    public IReadOnlyList<OpSlot> Slots { get; }

    /// <summary>Count of its slots.</summary>
    public int Count => Slots.Count;

    /// <summary>The slot at a place in the table.</summary>
    /// <param name="index">The place, from 0.</param>
    /// <returns>The slot.</returns>
    public OpSlot this[int index] => Slots[index];

    /// <summary>Enumerates the slots in order.</summary>
    /// <returns>The enumerator.</returns>
    public IEnumerator<OpSlot> GetEnumerator() => Slots.GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    /// <inheritdoc/>
    public override string ToString() => Name;
}
