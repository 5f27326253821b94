using System.Runtime.CompilerServices;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>What a backend puts at all sites of a kind: finished bytes but for one displacement, or what goes into an island.</summary>
internal sealed record LiveBody
{
    public required LiveForm Form { get; init; }

    public required PatchAction Action { get; init; }

    /// <summary>The slot.</summary>
    public int Slot { get; init; }

    /// <summary>The sites' budget.</summary>
    public int Length { get; init; }

    public PatchReason Reason { get; init; }

    public string? Detail { get; init; }

    /// <summary>The bytes, the displacement zero. Nothing for <see cref="LiveForm.InPlace"/>.</summary>
    public SiteBytes Bytes { get; init; }

    /// <summary>Where the 32-bit displacement is; -1 where there is none. It counts from the site's end.</summary>
    public int Field { get; init; } = -1;

    /// <summary>What the displacement leads to: a function, the slot's word, or data. An island's address comes from the store.</summary>
    public VirtualAddress Target { get; init; }

    /// <summary>What the island does: the number of a body in <see cref="IslandStore"/>; -1 where there is no island.</summary>
    public int Island { get; init; } = -1;

    /// <summary>The body in place and nops behind it.</summary>
    public CodeTemplate? InPlace { get; init; }

    /// <summary>What the body's instructions may read, where it is one in the site.</summary>
    public RegisterSet Reads { get; init; }

    /// <summary>The same in an island, for sites whose argument it may read; nothing where the kind's sites have none.</summary>
    public LiveBody? OutOfLine { get; init; }

    /// <summary>Why no site of the kind can be planned.</summary>
    public PatchDiagnostic? Error { get; init; }

    /// <summary>Ones where the sites' bytes are in two words.</summary>
    public SiteBytes Mask { get; init; }

    /// <summary>
    /// Whether sites of the kind need nothing looked at but reach: neither a finding, nor a byte array, nor anything to be told.
    /// </summary>
    public bool IsPlain { get; init; }

    /// <summary>The site as it was emitted, for the reason given. <see cref="BackendBinding"/> adds the bytes.</summary>
    public static LiveBody Indirect(PatchReason reason, string? detail) =>
        new() { Form = LiveForm.Original, Action = PatchAction.LeaveAlone, Reason = reason, Detail = detail };

    /// <summary>This body with the bytes a site of a kind is emitted with, if it is short enough to be held in two words.</summary>
    public LiveBody WithBytesOf(SlotTable slots, PatchSite kind)
    {
        if (kind.Budget is < PrefixPadding.IndirectLength or > 16)
        {
            return this;
        }

        // Assembled for address 0, with the slot where the displacement comes out as 0.
        Span<byte> bytes = stackalloc byte[kind.Budget];
        PrefixPadding.WriteIndirect(bytes, VirtualAddress.Zero, (ulong)kind.Budget, slots.Layout[kind.Slot].Kind == SlotKind.Jump);
        return this with { Bytes = SiteBytes.From(bytes), Field = kind.Budget - 4, Target = slots.AddressOf(kind.Slot) };
    }

    /// <summary>The body made ready for the walk over sites.</summary>
    public LiveBody ReadyFor(PatchSite kind) => this with
    {
        Slot = kind.Slot,
        Length = kind.Budget,
        Mask = kind.Budget <= 16 ? new SiteBytes(ulong.MaxValue, ulong.MaxValue).Cut(kind.Budget) : default,
        OutOfLine = OutOfLine?.ReadyFor(kind),
        IsPlain = Error is null && Action != PatchAction.Trap && kind.Budget <= 16 && Form != LiveForm.InPlace,
    };

    public static LiveBody Failed(PatchDiagnostic error) =>
        new() { Form = LiveForm.Original, Action = PatchAction.LeaveAlone, Error = error };

    /// <summary>The bytes at a site.</summary>
    /// <param name="end">The site's end.</param>
    /// <param name="target">Where the displacement leads.</param>
    /// <param name="bytes">The bytes.</param>
    /// <returns>Whether the target is in reach.</returns>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool TryFinish(VirtualAddress end, VirtualAddress target, out SiteBytes bytes)
    {
        bytes = Bytes;
        if (Field < 0)
        {
            return true;
        }

        bool inReach = Displacement.TryGet(end, target, 64, out int displacement);
        bytes = Bytes.With(Field, displacement);
        return inReach;
    }
}

/// <summary>What a site is to do, the same for all sites of a kind unless they are linked.</summary>
internal struct SiteWish
{
    /// <summary>What it shall hold; nothing where it stays as it is.</summary>
    public LiveBody? Body;

    /// <summary>Where the body's displacement leads, if it has one and is no island.</summary>
    public VirtualAddress Entry;

    /// <summary>Its state when all is well.</summary>
    public LiveSiteState After;

    /// <summary>Whether a call through the slot does the same.</summary>
    public bool SlotServes;

    /// <summary>Whether a linked site is left as it is.</summary>
    public bool KeepsLinks;

    /// <summary>Place of the change that asks for it; -1 where none does.</summary>
    public int Order;

    /// <summary>Place of the last change that takes links from it: those before are no more; -1 where none does.</summary>
    public int Cut;

    /// <summary>What it was found out for; see <see cref="LivePlanner"/>.</summary>
    public int Stamp;
}
