using System.Globalization;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>Where a live site is in its life.</summary>
public enum LiveSiteState : byte
{
    /// <summary>It holds the bytes it was emitted with.</summary>
    Original,

    /// <summary>It holds a backend's body, or stays indirect for one.</summary>
    Bound,

    /// <summary>Its block was retired: it is not written any more.</summary>
    Retired,

    /// <summary>A batch failed and could not be taken back here: what it holds runs, but is not what was asked for.</summary>
    Faulted,

    /// <summary>It leads to a target of its own, whatever its slot is switched to.</summary>
    Linked,
}

/// <summary>What form a site's bytes have.</summary>
public enum LiveForm : byte
{
    /// <summary>The emitted call or jump through the slot.</summary>
    Original,

    /// <summary>One instruction that does the operation: a nop, a move, a body.</summary>
    OneInstruction,

    /// <summary>A direct call that ends where the site ends.</summary>
    Call,

    /// <summary>A direct jump: out of the code, or to a label where the site follows settings.</summary>
    Jump,

    /// <summary>A jump to an immutable block that holds the body's instructions and jumps back.</summary>
    Island,

    /// <summary>Several instructions in the site itself. Put there at quiescence only; leaving it needs a grace period.</summary>
    InPlace,
}

/// <summary>
/// One site of a block: a view, made when asked for. Reading it while a batch is under way gives what was last published.
/// </summary>
public readonly record struct LiveSite
{
    internal LiveSite(CodeBlock block, int index)
    {
        Block = block;
        Index = index;
    }

    /// <summary>The block.</summary>
    public CodeBlock Block { get; }

    /// <summary>Its place in the block, in order of address.</summary>
    public int Index { get; }

    /// <summary>Run address of the first byte.</summary>
    public VirtualAddress Address => Block.AddressOf(Index);

    /// <summary>Run address behind the last byte: what a call at the site leaves as its return address.</summary>
    public VirtualAddress End => Address + Budget;

    /// <summary>Length in bytes.</summary>
    public int Budget => Block.KindOf(Index).Budget;

    /// <summary>What a body may destroy.</summary>
    public RegisterSet Clobbers => Block.KindOf(Index).Clobbers;

    /// <summary>The operation; <see langword="null"/> where the site follows settings.</summary>
    public OpSlot? Slot => Block.KindOf(Index).Slot is int slot && slot < Block.Slots!.Layout.Count ? Block.Slots.Layout[slot] : null;

    /// <summary>The settings it follows: several for a branch on several keys, none where it is an operation's.</summary>
    public IReadOnlyList<LiveSetting> Settings => Block.SettingOf(Index) is SettingSite setting ? setting.Settings.ToArray() : [];

    /// <summary>The operation's name, or the settings'.</summary>
    public string Name => Block.SettingOf(Index)?.Name ?? Slot!.ToString();

    /// <summary>
    /// What it passes to its operation, the registers named; <see langword="null"/> where it was emitted without an argument.
    /// </summary>
    public SiteArgument? Argument => Block.ArgumentOf(Index) is { IsNone: false } argument ? argument.Argument : null;

    /// <summary>How it can be written while other threads run it.</summary>
    public SiteClass Class => Record.Class;

    /// <summary>Where it is in its life.</summary>
    public LiveSiteState State => Block.IsRetired ? LiveSiteState.Retired : Record.State;

    /// <summary>What form its bytes have.</summary>
    public LiveForm Form => Record.Form;

    /// <summary>What the bound backend does here.</summary>
    public PatchAction Action => Record.Action;

    /// <summary>Why it stays indirect, where it does.</summary>
    public PatchReason Reason => Record.Reason;

    /// <summary>
    /// Where its direct call or jump leads: the function itself, also where a thunk or a far jump of the arena stands before it. Nothing
    /// for other forms. Ask between
    /// batches.
    /// </summary>
    public VirtualAddress? Target => Block.DirectTargetOf(Index) is VirtualAddress entry ? Block.Arena.Functions.TargetOf(entry) : null;

    /// <summary>Whether it has a forwarding island in reach, so that executors never wait at its guard.</summary>
    public bool HasForwarding => Record.Forward != 0;

    internal ref SiteRecord Record => ref Block.Records[Index];

    /// <summary>The site's bytes as they are now; a copy.</summary>
    /// <returns>As many bytes as the budget.</returns>
    /// <exception cref="PatchException">The arena was disposed of (PV8004).</exception>
    public byte[] ToArray()
    {
        using ArenaMemory.Usage usage = Block.Arena.Memory.Use();
        return Block.Arena.Memory.Span(Address, Budget).ToArray();
    }

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Address} {Name} {Class} {State} {Form}");
}
