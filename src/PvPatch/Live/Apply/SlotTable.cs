using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// The slots of a layout in an arena: one aligned 8-byte word each, holding the address of the function that does the operation now. Code calls through them
/// until its sites are patched. They hold a trap (<c>ud2</c>, see <see cref="CodeArena.TryFindTrap"/>)
/// until a backend is switched to.
/// </summary>
public sealed unsafe class SlotTable
{
    private readonly ArenaMemory _memory;
    private readonly VirtualAddress _traps;
    private LiveBody?[] _originals = [];

    internal SlotTable(ArenaMemory memory, OpsLayout layout, VirtualAddress address, VirtualAddress traps)
    {
        _memory = memory;
        _traps = traps;
        Layout = layout;
        Address = address;
        Kinds = new SiteKinds(layout.Count);
        for (int i = 0; i < layout.Count; i++)
        {
            this[i] = TrapOf(i);
        }
    }

    /// <summary>The layout.</summary>
    public OpsLayout Layout { get; }

    /// <summary>Run address of slot 0; slot n is 8·n bytes on.</summary>
    public VirtualAddress Address { get; }

    internal SiteKinds Kinds { get; }

    /// <summary>Each kind of site as it was emitted: what sites are reverted to.</summary>
    internal LiveBody OriginalOf(int kind)
    {
        if (kind >= _originals.Length || _originals[kind] is not LiveBody body)
        {
            body = LiveBody.Indirect(Plans.PatchReason.None, null).WithBytesOf(this, Kinds[kind]).ReadyFor(Kinds[kind]);
            Array.Resize(ref _originals, Math.Max(Kinds.Count, _originals.Length));
            _originals[kind] = body;
        }

        return body;
    }

    /// <summary>The patcher that has these slots; there is one at a time.</summary>
    internal LivePatcher? Patcher { get; set; }

    /// <summary>The function a slot holds.</summary>
    internal VirtualAddress this[int slot]
    {
        get => Volatile.Read(ref *(ulong*)_memory.WriteView(AddressOf(slot)));
        set => Volatile.Write(ref *(ulong*)_memory.WriteView(AddressOf(slot)), value.Value);
    }

    /// <summary>Where a slot's word is: what <c>call [rip+…]</c> names.</summary>
    /// <param name="slot">A slot of this layout.</param>
    /// <returns>Its run address, a multiple of 8.</returns>
    /// <exception cref="PatchException">The slot is of another layout (PV2004).</exception>
    public VirtualAddress AddressOf(OpSlot slot)
    {
        ArgumentNullException.ThrowIfNull(slot);
        CheckOwn(slot);
        return AddressOf(slot.Index);
    }

    /// <summary>The function a slot holds now.</summary>
    /// <param name="slot">A slot of this layout.</param>
    /// <returns>Its run address.</returns>
    /// <exception cref="PatchException">The slot is of another layout (PV2004); the arena was disposed of (PV8004).</exception>
    public VirtualAddress FunctionOf(OpSlot slot)
    {
        ArgumentNullException.ThrowIfNull(slot);
        CheckOwn(slot);
        using ArenaMemory.Usage usage = _memory.Use();
        return this[slot.Index];
    }

    /// <summary>The trap that a slot without an operation holds; nothing where it is data, which nobody calls.</summary>
    internal VirtualAddress TrapOf(int slot) => Layout[slot].Kind == SlotKind.Data ? VirtualAddress.Zero : SlotTraps.AddressOf(_traps, slot);

    /// <summary>The slot whose trap stands at an address.</summary>
    internal bool TryFindTrap(VirtualAddress address, out int slot)
    {
        bool found = SlotTraps.TryFind(_traps, Layout.Count, address, out slot);
        return found && Layout[slot].Kind != SlotKind.Data;
    }

    internal VirtualAddress AddressOf(int slot) => Address + 8L * slot;

    /// <summary>The bytes a site of a kind is emitted with: cs prefixes, then <c>call</c> or <c>jmp [rip+slot]</c> ending where the site ends.</summary>
    internal void WriteOriginal(PatchSite kind, VirtualAddress site, Span<byte> destination) =>
        IndirectForm.Write(destination[..kind.Budget], site, AddressOf(kind.Slot), Layout[kind.Slot].Kind == SlotKind.Jump);

    internal void CheckOwn(OpSlot slot)
    {
        if (slot.Index >= Layout.Count || !ReferenceEquals(Layout[slot.Index], slot))
        {
            throw new PatchException(PatchDiagnostic.Error(DiagnosticCodes.WrongLayout, $"the slot {slot} is of another layout") with { Expected = Layout.Name });
        }
    }
}
