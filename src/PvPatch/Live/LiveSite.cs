using System.Globalization;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

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

    /// <summary>The operation.</summary>
    public OpSlot Slot => Block.Slots!.Layout[Block.KindOf(Index).Slot];

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
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Address} {Slot} {Class} {State} {Form}");
}
