using System.Buffers.Binary;
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
    private BackendChoice? _choice;

    // What many sites share, slot, budget, clobbers and traits, has a number: the site's kind.
    private readonly Lock _kindLock = new();
    private readonly Dictionary<ulong, int> _kindNumbers = [];
    private readonly RegisterSet[] _allowed; // by slot
    private PatchSite[] _kinds = new PatchSite[16];
    private int[] _siteCounts = new int[16]; // by kind

    internal SlotTable(CodeArena arena, OpsLayout layout, VirtualAddress address, VirtualAddress traps)
    {
        Arena = arena;
        _memory = arena.Memory;
        _traps = traps;
        Layout = layout;
        Address = address;
        _allowed = new RegisterSet[SettingSlotOf(layout) + 1];
        Array.Fill(_allowed, RegisterSet.All);
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

    /// <summary>Number of kinds of site there are so far.</summary>
    internal int KindCount { get; private set; }

    internal CodeArena Arena { get; }

    /// <summary>
    /// What each slot is switched to: it holds a function of that. Changed under the patch lock; outlives the patcher that changed it.
    /// </summary>
    internal BackendBinding?[] Bound { get; }

    /// <summary>
    /// The number that stands for a slot in kinds of sites that have none, for they follow settings: the one behind the last.
    /// </summary>
    internal static int SettingSlotOf(OpsLayout layout) => layout.Count;

    /// <summary>A kind of site by its number, as a site at address 0.</summary>
    internal PatchSite KindOf(int number) => _kinds[number];

    /// <summary>What every site of a slot allows to be destroyed; sites of retired blocks too, until no thread can be in them.</summary>
    internal RegisterSet AllowedBy(int slot) => _allowed[slot];

    /// <summary>The number of a site's kind; a new one where there is none yet.</summary>
    internal int NumberOf(PatchSite site)
    {
        lock (_kindLock)
        {
            if (_kindNumbers.TryGetValue(site.DecisionKey, out int number))
            {
                return number;
            }

            if (KindCount == _kinds.Length)
            {
                Array.Resize(ref _siteCounts, KindCount * 2);
                Array.Resize(ref _kinds, KindCount * 2);
            }

            number = KindCount;
            _kinds[number] = site.At(VirtualAddress.Zero);
            _kindNumbers.Add(site.DecisionKey, number);
            KindCount++;
            return number;
        }
    }

    /// <summary>
    /// What all slots and sites were switched to last. Changed under the patch lock; a switch of one slot or of some sites is none.
    /// </summary>
    internal Backend? Whole { get; set; }

    /// <summary>Whether any site was emitted that follows <see cref="Choice"/>.</summary>
    internal bool HasChoice => Volatile.Read(ref _choice) is not null;

    /// <summary>What sites of variants follow; made when the first is emitted.</summary>
    internal BackendChoice Choice
    {
        get
        {
            if (!HasChoice)
            {
                using PatchLock held = Arena.PatchLock.Enter(wait: true);
                var choice = new BackendChoice(Layout.Name);
                choice.Value = Whole is Backend backend ? choice.NumberOf(backend) : BackendChoice.None;
                Interlocked.CompareExchange(ref _choice, choice, null);
            }

            return _choice!;
        }
    }

    /// <summary>Each kind of site as it was emitted: what sites are reverted to.</summary>
    internal LiveBody OriginalOf(int kind)
    {
        if (kind >= _originals.Length || _originals[kind] is not LiveBody body)
        {
            body = LiveBody.Indirect(PatchReason.None, null).WithBytesOf(this, _kinds[kind]).ReadyFor(_kinds[kind]);
            Array.Resize(ref _originals, Math.Max(KindCount, _originals.Length));
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
        if (!Count(block))
        {
            return;
        }

        bool written = false;
        for (int pass = 0; pass < 2; pass++)
        {
            for (int slot = 0; slot < Bound.Length; slot++)
            {
                if (Bound[slot] is not BackendBinding binding)
                {
                    continue;
                }

                if (!binding.TryGetFunction(slot, out VirtualAddress function, out PatchDiagnostic? error))
                {
                    Forget(block);
                    throw new PatchException(error!);
                }

                if (pass == 1 && function != _stored[slot])
                {
                    // A function where other code stood before: another processor may be reading ahead there.
                    if (!written && !block.Arena.RunBarrier())
                    {
                        Interlocked.MemoryBarrierProcessWide();
                    }

                    written = true;
                    Store(slot, function);
                }
            }
        }
    }

    /// <summary>Takes a block's sites out of account, when no thread can be in them any more or none ever was.</summary>
    internal void Forget(CodeBlock block)
    {
        lock (_kindLock)
        {
            foreach (ref SiteRecord record in block.Records.AsSpan())
            {
                if (--_siteCounts[record.Kind] == 0)
                {
                    Widen(_kinds[record.Kind].Slot);
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
        PrefixPadding.WriteIndirect(destination[..kind.Budget], site, AddressOf(kind.Slot), Layout[kind.Slot].Kind == SlotKind.Jump);

    /// <summary>
    /// The same, leading to a stub that goes on through the slot: cs prefixes, then <c>e8</c> (call) or <c>e9</c> (jmp) and the
    /// displacement.
    /// </summary>
    internal static void WriteBranch(Span<byte> site, VirtualAddress address, VirtualAddress stub, bool jump)
    {
        int length = site.Length;
        site.Fill(PrefixPadding.Cs);
        site[length - BranchCode.NearLength] = (byte)(jump ? 0xe9 : 0xe8);
        int displacement = checked((int)(stub - (address + length))); // in reach: one arena
        BinaryPrimitives.WriteInt32LittleEndian(site[(length - sizeof(int))..], displacement);
    }

    internal void CheckOwn(OpSlot slot)
    {
        if (!IsOwn(slot))
        {
            throw new PatchException(NotOwn(slot));
        }
    }

    internal bool IsOwn(OpSlot slot) => slot.Index < Layout.Count && ReferenceEquals(Layout[slot.Index], slot);

    /// <summary>Counts a block's sites.</summary>
    /// <returns>Whether a slot's sites allow less together than before.</returns>
    private bool Count(CodeBlock block)
    {
        lock (_kindLock)
        {
            bool narrows = false;
            foreach (ref SiteRecord record in block.Records.AsSpan())
            {
                if (_siteCounts[record.Kind]++ == 0)
                {
                    PatchSite kind = _kinds[record.Kind];
                    RegisterSet allowed = _allowed[kind.Slot] & kind.Clobbers;
                    narrows |= allowed != _allowed[kind.Slot];
                    _allowed[kind.Slot] = allowed;
                }
            }

            return narrows;
        }
    }

    private void Widen(int slot)
    {
        RegisterSet allowed = RegisterSet.All;
        for (int kind = 0; kind < KindCount; kind++)
        {
            if (_siteCounts[kind] > 0 && _kinds[kind].Slot == slot)
            {
                allowed &= _kinds[kind].Clobbers;
            }
        }

        _allowed[slot] = allowed;
    }

    internal PatchDiagnostic NotOwn(OpSlot slot) =>
        PatchDiagnostic.Error(DiagnosticCodes.WrongLayout, $"the slot {slot} is of another layout") with { Expected = Layout.Name };
}
