using System.Buffers.Binary;
using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Live;

/// <content>The bytes of sites and forwarding islands, when addresses are known.</content>
internal sealed partial class BlockAssembly
{
    /// <summary>
    /// Writes a site and its forwarding island, where a guard leads that is put up while the site is changed:
    /// <code>
    /// site          2e ff 15 dd dd dd dd      cs call [rip+slot]
    ///   guarded     eb ff                     jmp to the island, 127 bytes away at most
    /// island        ff 15 dd dd dd dd         call [rip+slot], and so does the operation
    ///               e9 dd dd dd dd            jmp to the site's end
    /// </code>
    /// Where the site has an argument, site and island call its stub: <c>2e e8 dd dd dd dd</c>, see <see cref="ArgumentStubs"/>.
    /// </summary>
    private void Finish(int index, CodeLabels labels, Span<byte> code, CodeBlock block, int number)
    {
        ref SiteRecord record = ref block.Records[number];
        EmittedSite emitted = _sites[index];
        SlotTable slots = block.Slots!;
        int offset = labels.OffsetOf(emitted.Instruction);
        int budget = emitted.Kind.Budget;
        VirtualAddress site = block.Address + offset;
        record.Offset = (uint)(site - _arena.Address);
        record.Kind = slots.NumberOf(
            emitted.Convention is null ? emitted.Kind : emitted.Kind.WithConvention(slots.NumberOf(emitted.Convention)));
        if (emitted.Setting is EmittedSetting follows)
        {
            Place(follows, labels, block, number, budget);
            return;
        }

        Span<byte> bytes = code.Slice(offset, budget);
        bool jump = slots.Layout[emitted.Kind.Slot].Kind == SlotKind.Jump;
        VirtualAddress? stub = StubOf(emitted, block, number);
        if (stub is null)
        {
            slots.WriteOriginal(emitted.Kind, site, bytes);
        }
        else
        {
            SlotTable.WriteBranch(bytes, site, stub.Value, jump);
            if (emitted.Argument.IsNone)
            {
                block.KeepOriginal(number, bytes.ToArray());
            }
        }

        if (emitted.Forwarding)
        {
            int island = labels.OffsetOf(_islandOf[index]);
            WriteForwarding(
                code.Slice(island, EmittedSite.IslandLength), block.Address + island, site + budget,
                slots.AddressOf(emitted.Kind.Slot), stub, jump);
            int distance = island - (offset + 2);
            record.Forward = distance is >= sbyte.MinValue and <= sbyte.MaxValue ? (sbyte)distance : (sbyte)0;
        }
    }

    /// <summary>Gives a site what it follows; its bytes are put there under the patch lock.</summary>
    private void Place(EmittedSetting follows, CodeLabels labels, CodeBlock block, int number, int length)
    {
        uint start = (uint)(block.Address - _arena.Address);
        SettingSite setting = follows.Place(
            block.Slots!, Array.ConvertAll(follows.Labels, l => l == 0 ? 0 : start + (uint)labels.OffsetOf(_placed![l])));
        if (setting.CheckReach(block.AddressOf(number), length) is PatchDiagnostic error)
        {
            throw new PatchException(error);
        }

        block.SetSetting(number, setting);
    }

    /// <summary>
    /// What stands between a site and its slot: a thunk that brings its operands to the slot's registers, and before that the stub that
    /// loads its argument. Nothing where it calls through its slot.
    /// </summary>
    private VirtualAddress? StubOf(in EmittedSite emitted, CodeBlock block, int number)
    {
        SlotTable slots = block.Slots!;
        VirtualAddress target = slots.AddressOf(emitted.Kind.Slot);
        PatchDiagnostic? error = null;
        bool isSlot = emitted.Convention is null;
        if (!isSlot && !(_arena.Functions.TryGetSlotJump(target, out VirtualAddress jump, out error)
            && _arena.Functions.TryGetThunk(slots.ThunkOf(block.KindOf(number), jump), out target, out error)))
        {
            throw new PatchException(error!); // no room: slots are in the arena, and so in reach
        }

        if (emitted.Argument.IsNone)
        {
            return isSlot ? null : target;
        }

        if (!_arena.Arguments.TryAdd(
            block.Records[number].Offset, emitted.Argument, target, isSlot, out VirtualAddress stub, out error))
        {
            throw new PatchException(error!);
        }

        block.SetArgument(number, emitted.Argument with { Stub = (uint)(stub - _arena.Address) });
        return stub;
    }

    private static void WriteForwarding(
        Span<byte> island, VirtualAddress address, VirtualAddress end, VirtualAddress slot, VirtualAddress? stub, bool jump)
    {
        Span<byte> call = island[..PrefixPadding.IndirectLength];
        if (stub is null)
        {
            PrefixPadding.WriteIndirect(call, address, slot, jump);
        }
        else
        {
            SlotTable.WriteBranch(call, address, stub.Value, jump);
        }

        island[call.Length] = 0xe9; // jmp rel32 to the site's end
        BinaryPrimitives.WriteInt32LittleEndian(island[(call.Length + 1)..], (int)(end - (address + EmittedSite.IslandLength)));
    }
}
