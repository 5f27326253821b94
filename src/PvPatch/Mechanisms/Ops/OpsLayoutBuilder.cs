using PvPatch.Machine;

namespace PvPatch.Mechanisms;

/// <summary>Collects the tables of an <see cref="OpsLayout"/>, in order.</summary>
public sealed class OpsLayoutBuilder
{
    private readonly string _name;
    private readonly List<OpsTable> _tables = [];
    private readonly HashSet<string> _names = new(StringComparer.Ordinal);
    private int _next;

    internal OpsLayoutBuilder(string name) => _name = name;

    /// <summary>Adds a table behind the ones there are.</summary>
    /// <param name="name">Its name, once in a layout; empty for slots without a table.</param>
    /// <param name="build">Names its slots in order.</param>
    /// <param name="convention">The convention of slots that name none; System V where <see langword="null"/>.</param>
    /// <returns>This builder.</returns>
    /// <exception cref="PatchException">The table's or a slot's name occurs twice (PV2003).</exception>
    public OpsLayoutBuilder Table(string name, Action<OpsTableBuilder> build, CallConvention? convention = null)
    {
        ArgumentNullException.ThrowIfNull(name);
        ArgumentNullException.ThrowIfNull(build);
        if (_tables.Exists(t => t.Name == name))
        {
            throw Duplicate("table", name);
        }

        var table = new OpsTableBuilder(this, name, convention ?? CallConvention.SysV);
        build(table);
        _tables.Add(table.Build());
        return this;
    }

    internal OpSlot NewSlot(string table, string shortName, SlotKind kind, CallConvention convention)
    {
        var slot = new OpSlot(table, shortName, _next++, kind, convention);
        return _names.Add(slot.Name) ? slot : throw Duplicate("slot", slot.Name);
    }

    internal OpsLayout Build() => new(_name, _tables);

    private static PatchException Duplicate(string what, string name) =>
        new(PatchDiagnostic.Error(DiagnosticCodes.DuplicateName, $"the {what} \"{name}\" occurs twice in the layout"));
}

/// <summary>Collects the slots of one table, in order.</summary>
public sealed class OpsTableBuilder
{
    private readonly OpsLayoutBuilder _layout;
    private readonly string _name;
    private readonly CallConvention _convention;
    private readonly List<OpSlot> _slots = [];

    internal OpsTableBuilder(OpsLayoutBuilder layout, string name, CallConvention convention)
    {
        _layout = layout;
        _name = name;
        _convention = convention;
    }

    /// <summary>Adds a slot behind the ones there are.</summary>
    /// <param name="name">Its name within the table.</param>
    /// <param name="kind">Whether sites call it or jump to it.</param>
    /// <param name="convention">How its function is called; the table's convention where none is given.</param>
    /// <returns>This builder.</returns>
    public OpsTableBuilder Slot(string name, SlotKind kind = SlotKind.Call, CallConvention? convention = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        _slots.Add(_layout.NewSlot(_name, name, kind, convention ?? _convention));
        return this;
    }

    internal OpsTable Build() => new(_name, [.. _slots]);
}
