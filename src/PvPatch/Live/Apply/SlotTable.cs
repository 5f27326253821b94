using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// The slots of a layout in an arena: one aligned 8-byte word each, holding the address of the function that does the operation now. Code
/// calls through them until its sites are patched. They hold a trap (<c>ud2</c>, see <see cref="CodeArena.TryFindTrap"/>)
/// until a backend is switched to.
/// </summary>
public sealed unsafe class SlotTable
{
    private readonly ArenaMemory _memory;
    private readonly VirtualAddress _traps;
    private readonly VirtualAddress[] _stored;
    private LiveBody?[] _originals = [];

    internal SlotTable(ArenaMemory memory, OpsLayout layout, VirtualAddress address, VirtualAddress traps)
    {
        _memory = memory;
        _traps = traps;
        Layout = layout;
        Address = address;
        Kinds = new SiteKinds(SettingSlotOf(layout) + 1);
        Bound = new BackendBinding?[layout.Count];
        _stored = new VirtualAddress[layout.Count];
        for (int i = 0; i < layout.Count; i++)
        {
            Store(i, TrapOf(i));
        }
    }

    /// <summary>The layout.</summary>
    public OpsLayout Layout { get; }

    /// <summary>Run address of slot 0; slot n is 8·n bytes on.</summary>
    public VirtualAddress Address { get; }

    internal SiteKinds Kinds { get; }

    /// <summary>
    /// What each slot is switched to: it holds a function of that. Changed under the patch lock; outlives the patcher that changed it.
    /// </summary>
    internal BackendBinding?[] Bound { get; }

    /// <summary>The number that stands for a slot in kinds of sites that have none, for they follow settings: the one behind the last.</summary>
    internal static int SettingSlotOf(OpsLayout layout) => layout.Count;

    /// <summary>Each kind of site as it was emitted: what sites are reverted to.</summary>
    internal LiveBody OriginalOf(int kind)
    {
        if (kind >= _originals.Length || _originals[kind] is not LiveBody body)
        {
            body = LiveBody.Indirect(PatchReason.None, null).WithBytesOf(this, Kinds[kind]).ReadyFor(Kinds[kind]);
            Array.Resize(ref _originals, Math.Max(Kinds.Count, _originals.Length));
            _originals[kind] = body;
        }

        return body;
    }

    /// <summary>The patcher that has these slots; there is one at a time.</summary>
    internal LivePatcher? Patcher { get; set; }

    /// <summary>The function a slot holds.</summary>
    internal VirtualAddress this[int slot] => Volatile.Read(ref *(ulong*)_memory.WriteView(AddressOf(slot)));

    /// <summary>The function a slot should hold: what was stored last.</summary>
    internal VirtualAddress Expected(int slot) => _stored[slot];

    /// <summary>Gives a slot a function. Under the patch lock.</summary>
    internal void Store(int slot, VirtualAddress function)
    {
        _stored[slot] = function;
        Volatile.Write(ref *(ulong*)_memory.WriteView(AddressOf(slot)), function.Value);
    }

    /// <summary>
    /// Takes a new block's sites into account, before anyone can run them: where they allow less than those so far, slots get functions
    /// that keep to it. Under the patch lock, so that
    /// no switch stores a function that was decided without them.
    /// </summary>
    /// <param name="block">The block.</param>
    /// <exception cref="PatchException">
    /// A slot's function can't be made to keep to what a site allows (PV8030); the sites are forgotten then.
    /// </exception>
    internal void Admit(CodeBlock block)
    {
        if (!Kinds.Add(block.Records))
        {
            return;
        }

        bool written = false;
        for (int pass = 0; pass < 2; pass++)
        {
            for (int slot = 0; slot < Bound.Length; slot++)
            {
                if (Bound[slot]?.FunctionOf(slot) is not BackendBinding.Function function)
                {
                    continue;
                }

                if (function.Error is not null)
                {
                    Kinds.Remove(block.Records);
                    throw new PatchException(function.Error);
                }

                if (pass == 1 && function.Address != _stored[slot])
                {
                    // A function where other code stood before: another processor may be reading ahead there.
                    if (!written && !block.Arena.RunBarrier())
                    {
                        Interlocked.MemoryBarrierProcessWide();
                    }

                    written = true;
                    Store(slot, function.Address);
                }
            }
        }
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
    internal VirtualAddress TrapOf(int slot) =>
        Layout[slot].Kind == SlotKind.Data ? VirtualAddress.Zero : NativeCode.SlotTrap(_traps, slot);

    /// <summary>The slot whose trap stands at an address.</summary>
    internal bool TryFindTrap(VirtualAddress address, out int slot)
    {
        bool found = NativeCode.TryFindSlotTrap(_traps, Layout.Count, address, out slot);
        return found && Layout[slot].Kind != SlotKind.Data;
    }

    internal VirtualAddress AddressOf(int slot) => Address + 8L * slot;

    /// <summary>
    /// The bytes a site of a kind is emitted with: cs prefixes, then <c>call</c> or <c>jmp [rip+slot]</c> ending where the site ends.
    /// </summary>
    internal void WriteOriginal(PatchSite kind, VirtualAddress site, Span<byte> destination) =>
        IndirectForm.Write(destination[..kind.Budget], site, AddressOf(kind.Slot), Layout[kind.Slot].Kind == SlotKind.Jump);

    internal void CheckOwn(OpSlot slot)
    {
        if (!IsOwn(slot))
        {
            throw new PatchException(NotOwn(slot));
        }
    }

    internal bool IsOwn(OpSlot slot) => slot.Index < Layout.Count && ReferenceEquals(Layout[slot.Index], slot);

    internal PatchDiagnostic NotOwn(OpSlot slot) =>
        PatchDiagnostic.Error(DiagnosticCodes.WrongLayout, $"the slot {slot} is of another layout") with { Expected = Layout.Name };
}
