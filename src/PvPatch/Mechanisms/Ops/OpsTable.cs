namespace PvPatch.Mechanisms;

/// <summary>A named group of slots that follow one another in a layout, such as <c>irq</c>.</summary>
public sealed class OpsTable
{
    internal OpsTable(string name, OpSlot[] slots)
    {
        Name = name;
        Slots = slots;
    }

    /// <summary>The table's name.</summary>
    public string Name { get; }

    /// <summary>Its slots in order.</summary>
    public IReadOnlyList<OpSlot> Slots { get; }

    /// <inheritdoc/>
    public override string ToString() => Name;
}
