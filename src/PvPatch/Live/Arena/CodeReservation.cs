using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// Room for code of a host's own emitter. Nothing of it runs before <see cref="Commit(int, OpsLayout, SiteTable, IReadOnlyList{VirtualAddress}?)"/>; disposed of without
/// that, it is given back.
/// </summary>
public sealed unsafe class CodeReservation : IDisposable
{
    private readonly CodeArena _arena;
    private readonly int _taken;
    private readonly bool _reused;
    private byte[]? _bytes; // not of the arena: what a host keeps of them can't outlive anything
    private bool _done;

    internal CodeReservation(CodeArena arena, int capacity)
    {
        _arena = arena;
        Capacity = capacity;
        _taken = Round(capacity);
        if (!arena.Memory.TryTakeCode(_taken, SiteRecord.LineSize, out VirtualAddress address, out _reused, out PatchDiagnostic? error))
        {
            throw new PatchException(error!);
        }

        Address = address;
    }

    /// <summary>Run address of the first byte, a multiple of 64.</summary>
    public VirtualAddress Address { get; }

    /// <summary>Bytes at most.</summary>
    public int Capacity { get; }

    /// <summary>
    /// The bytes, to write, zero at first. They are not at <see cref="Address"/>: displacements are computed from that, stores go here, and
    /// committing copies them there.
    /// </summary>
    /// <exception cref="PatchException">The arena was disposed of, or the room committed or given back (PV8004).</exception>
    public Span<byte> Span
    {
        get
        {
            CheckOpen();
            return _bytes ??= new byte[Capacity];
        }
    }

    /// <summary>Makes the code a block and its sites live ones. The code is ready to run when the call returns.</summary>
    /// <param name="length">Bytes written.</param>
    /// <param name="layout">The layout whose slots the sites name.</param>
    /// <param name="sites">
    /// The sites by run address. Each holds whole instructions, one of them an indirect call or jump; to be changed live, exactly that one,
    /// padded by prefixes before it. A call through this arena's slots must name the slot its site says; a call through any other memory is
    /// the host's to keep in step.
    /// </param>
    /// <param name="slotFunctions">
    /// Run address of the function that a slot's sites may call (jump to) directly, by slot index; 0 for a slot whose sites do not. Such a
    /// site calls the function until its slot is switched. From then on it is as one that calls through its slot: by the same instruction,
    /// which leads to a jump.
    /// </param>
    /// <returns>The block.</returns>
    /// <exception cref="PatchException">
    /// A site lies outside (PV8010), is no call (PV8011), goes through another slot or to another function (PV3002), names none (PV1006,
    /// PV1007); no room for the jump (PV8001).
    /// </exception>
    public CodeBlock Commit(int length, OpsLayout layout, SiteTable sites, IReadOnlyList<VirtualAddress>? slotFunctions = null)
    {
        ArgumentNullException.ThrowIfNull(layout);
        ArgumentNullException.ThrowIfNull(sites);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, Capacity);
        CheckOpen();
        SlotTable slots = _arena.SlotsOf(layout);
        var block = new CodeBlock(_arena, slots, Address, length, new SiteRecord[sites.Count]);
        byte[] code = Span[..length].ToArray();
        var forms = new SiteFormReader(64);
        for (int i = 0; i < sites.Count; i++)
        {
            PatchSite site = sites[i];
            VirtualAddress? function = site.Slot < slotFunctions?.Count ? slotFunctions[site.Slot] : null;
            ReadSite(site, i, block, code, forms, function is { IsZero: false } ? function : null);
        }

        Commit(Span[..length], [block]);
        return block;
    }

    /// <summary>Makes the code a block without sites. It is ready to run when the call returns.</summary>
    /// <param name="length">Bytes written.</param>
    /// <returns>The block.</returns>
    public CodeBlock Commit(int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, Capacity);
        var block = new CodeBlock(_arena, null, Address, length, []);
        Commit(Span[..length], [block]);
        return block;
    }

    /// <summary>Gives the room back if it was not committed.</summary>
    public void Dispose()
    {
        if (!_done && !_arena.Memory.IsDisposed)
        {
            _arena.Memory.GiveCode(Address, _taken, wereRun: false);
        }

        _done = true;
    }

    /// <summary>Puts code into the room and its blocks into use.</summary>
    /// <param name="code">The bytes.</param>
    /// <param name="blocks">The blocks of this code, one for each layout: place and kind of each site are known.</param>
    internal void Commit(ReadOnlySpan<byte> code, CodeBlock[] blocks)
    {
        CheckOpen();
        using ArenaMemory.Usage usage = _arena.Memory.Use();
        code.CopyTo(_arena.Memory.Span(Address, code.Length));
        foreach (CodeBlock block in blocks)
        {
            if (blocks.Length > 1)
            {
                block.SameCode = blocks;
            }

            Register(block);
        }

        using PatchLock? held = Array.Exists(blocks, static b => b.Slots is not null) ? _arena.PatchLock.Enter(wait: true) : null;
        _arena.CheckUsable();
        Array.ForEach(blocks, static b => b.CheckSettings());
        Admit(blocks);
        var claims = new LiveSetting.Claims(_arena);
        foreach (CodeBlock block in blocks)
        {
            if (block.SettleSettings(claims) is PatchDiagnostic foreign)
            {
                claims.Release();
                Dismiss(blocks);
                throw new PatchException(foreign);
            }

            block.SettleOwnCalls();
        }

        // Other processors may have something of these bytes from before: as code, where the room was used once; by reading ahead, always.
        bool reused = _reused || (Array.Exists(blocks, static b => b.HasArguments || b.HasOwnCalls) && _arena.Memory.HasReused);
        if (!_arena.RunBarrier() && reused)
        {
            claims.Release();
            Dismiss(blocks);
            throw new PatchException(PatchDiagnostic.Error(
                DiagnosticCodes.NoBarrier, "without a barrier used memory can't hold new code") with
            { Address = Address });
        }

        _done = true;
        _bytes = null;
        claims.Keep();
        int used = Round(code.Length);
        _arena.Memory.GiveCode(Address + used, _taken - used, wereRun: false);
        foreach (CodeBlock block in blocks)
        {
            _arena.Registry.Add(block);
            block.JoinSettings();
        }
    }

    /// <summary>Lets the sites of all blocks in or none. Under the patch lock.</summary>
    private static void Admit(ReadOnlySpan<CodeBlock> blocks)
    {
        for (int i = 0; i < blocks.Length; i++)
        {
            try
            {
                blocks[i].Slots?.Admit(blocks[i]);
            }
            catch (PatchException)
            {
                Dismiss(blocks[..i]);
                throw;
            }
        }
    }

    private static void Dismiss(ReadOnlySpan<CodeBlock> blocks)
    {
        foreach (CodeBlock block in blocks)
        {
            block.Slots?.Forget(block);
        }
    }

    /// <summary>Notes how each site can be changed, and what it holds.</summary>
    private void Register(CodeBlock block)
    {
        for (int i = 0; i < block.SiteCount; i++)
        {
            ref SiteRecord record = ref block.Records[i];
            int budget = block.KindOf(i).Budget;
            VirtualAddress address = block.AddressOf(i);
            bool single = record.IsForeign ? IsSingle(block.OriginalOf(i)) : budget <= SiteRecord.MaxLiveLength;
            record.Class = SiteRecord.Classify(address, budget, single, _arena.HasAtomic16, _arena.TrustsCacheLines);
            if (budget <= 16)
            {
                if (budget > sizeof(ulong))
                {
                    block.MakeRoomBehind();
                }

                block.SetBytes(i, SiteBytes.Read(_arena.Memory.WriteView(address), budget));
            }
        }
    }

    /// <summary>
    /// Whether bytes are one instruction that may be replaced by another under running threads: for a call, nothing stands behind it.
    /// </summary>
    private static bool IsSingle(ReadOnlySpan<byte> bytes)
    {
        var decoder = Decoder.Create(64, bytes.ToArray());
        decoder.Decode(out Instruction instruction);
        return !instruction.IsInvalid && instruction.Length == bytes.Length;
    }

    /// <summary>
    /// Reads a site into its block's record; the block keeps its bytes where they are not what an emitter would have written.
    /// </summary>
    private static void ReadSite(
        PatchSite site, int index, CodeBlock block, byte[] code, SiteFormReader forms, VirtualAddress? function)
    {
        SlotTable slots = block.Slots!;
        if (site.Slot >= slots.Layout.Count)
        {
            throw Error(DiagnosticCodes.SiteUnknownSlot, "the site names a slot the layout does not have", site, index, $"slot {site.Slot}",
                $"0 to {slots.Layout.Count - 1}");
        }

        OpSlot slot = slots.Layout[site.Slot];
        if (slot.Kind == SlotKind.Data)
        {
            throw Error(DiagnosticCodes.SiteDataSlot, $"the site names {slot}, which no code calls", site, index, null, null);
        }

        if (SiteEmitter.WhyNoCall(slot, site.Traits) is string why)
        {
            throw Error(DiagnosticCodes.LiveSiteForm, why, site, index, null, null);
        }

        long offset = site.Address - block.Address;
        if (site.Address < block.Address || offset > code.Length || site.Budget > code.Length - offset)
        {
            throw Error(DiagnosticCodes.LiveSiteOutside, "the site lies outside the code", site, index, $"{site.Address}+{site.Budget}",
                $"{block.Address}+{code.Length}");
        }

        byte[] bytes = code.AsSpan((int)offset, site.Budget).ToArray();
        SiteForm form = forms.Read(bytes, site.Address.Value, out ulong slotAddress);
        bool jump = slot.Kind == SlotKind.Jump;
        ref SiteRecord record = ref block.Records[index];
        record.Offset = (uint)(site.Address - block.Arena.Address);
        record.Kind = slots.NumberOf(site);
        if (function is not null && form == SiteForm.OtherCode
            && forms.TryReadDirect(bytes, site.Address.Value, jump, out ulong target, out int field))
        {
            if (target != function.Value.Value)
            {
                throw Error(DiagnosticCodes.WrongSlotOperand, $"the site of {slot} does not lead to the slot's function", site, index,
                    new VirtualAddress(target).ToString(), function.ToString());
            }

            if (!block.Arena.Functions.TryGetSlotJump(slots.AddressOf(slot), out VirtualAddress stub, out PatchDiagnostic? error))
            {
                throw new PatchException(error!);
            }

            block.KeepOwnCall(index, bytes, field, stub, IsSingle(bytes));
            return;
        }

        if (form != (jump ? SiteForm.IndirectJump : SiteForm.IndirectCall))
        {
            throw Error(
                DiagnosticCodes.LiveSiteForm,
                $"the site of {slot} does not hold an indirect {(jump ? "jump" : "call")}",
                site,
                index,
                HexBytes.Format(bytes),
                $"{(jump ? "jmp" : "call")} [slot], prefixes before it{(function is null ? "" : $", or to {function}")}");
        }

        CheckOperand(site, index, slots, slotAddress);
        byte[] usual = new byte[site.Budget];
        if (site.Budget >= PrefixPadding.IndirectLength)
        {
            slots.WriteOriginal(site, site.Address, usual);
        }

        if (!bytes.AsSpan().SequenceEqual(usual))
        {
            block.KeepOriginal(index, bytes);
        }
    }

    private static void CheckOperand(PatchSite site, int index, SlotTable slots, ulong slotAddress)
    {
        OpSlot slot = slots.Layout[site.Slot];
        long distance = unchecked((long)(slotAddress - slots.Address.Value));
        bool ours = distance >= 0 && distance < 8L * slots.Layout.Count;
        if (ours && distance != 8L * slot.Index)
        {
            string found = distance % 8 == 0 ? slots.Layout[(int)(distance / 8)].Name : "the middle of a slot";
            throw Error(DiagnosticCodes.WrongSlotOperand, $"the site of {slot} goes through another slot", site, index, found, slot.Name);
        }
    }

    private static PatchException Error(string code, string message, PatchSite site, int index, string? found, string? expected) =>
        new(PatchDiagnostic.Error(code, message) with { SiteIndex = index, Address = site.Address, Found = found, Expected = expected });

    private void CheckOpen()
    {
        _arena.CheckUsable();
        if (_done)
        {
            throw new PatchException(PatchDiagnostic.Error(
                DiagnosticCodes.ArenaDisposed, "the room was committed or given back before") with
            { Address = Address });
        }
    }

    /// <summary>Bytes taken for code of a length, the slack behind it included.</summary>
    internal static int Round(int length) => checked(length + ArenaMemory.Slack + SiteRecord.LineSize - 1) & -SiteRecord.LineSize;
}
