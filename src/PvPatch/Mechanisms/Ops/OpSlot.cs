using PvPatch.Machine;

namespace PvPatch.Mechanisms;

/// <summary>How code leaves for a slot's function.</summary>
public enum SlotKind
{
    /// <summary>By a call; the function returns.</summary>
    Call,

    /// <summary>By a jump; the function does not return to the site (iret, sysret).</summary>
    Jump,

    /// <summary>Not at all: the word holds data (the head of struct paravirt_ops until 2.6.23) or a hook that no site calls.</summary>
    Data,
}

/// <summary>One operation of an ops table: a word that holds a function's address.</summary>
public sealed class OpSlot
{
    internal OpSlot(string table, string shortName, int index, SlotKind kind, CallConvention convention)
    {
        Table = table;
        ShortName = shortName;
        Name = table.Length == 0 ? shortName : $"{table}.{shortName}";
        Index = index;
        Kind = kind;
        Convention = convention;
    }

    /// <summary>The full name, for example <c>irq.irq_disable</c>.</summary>
    public string Name { get; }

    /// <summary>The name of its table, for example <c>irq</c>.</summary>
    public string Table { get; }

    /// <summary>The name within the table.</summary>
    public string ShortName { get; }

    /// <summary>Its place in the layout, counted in words from 0: the <em>type number</em> of its sites.</summary>
    public int Index { get; }

    /// <summary>Whether sites call it, jump to it or never use it.</summary>
    public SlotKind Kind { get; }

    /// <summary>How its function is called.</summary>
    public CallConvention Convention { get; }

    /// <inheritdoc/>
    public override string ToString() => Name;

    /// <summary>The slot as sites see it that have its operands in registers of their own.</summary>
    internal OpSlot With(CallConvention convention) => new(Table, ShortName, Index, Kind, convention);
}
