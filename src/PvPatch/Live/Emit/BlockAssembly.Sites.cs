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
        record.Kind = slots.NumberOf(emitted.Kind);
        if (emitted.Setting is EmittedSetting follows)
        {
            Place(follows, labels, block, number, budget);
            return;
        }

        if (!emitted.Argument.IsNone)
        {
            block.SetArgument(number, MakeStub(emitted, record.Offset, slots));
            block.OriginalOf(number).CopyTo(code[offset..]);
        }
        else
        {
            slots.WriteOriginal(emitted.Kind, site, code.Slice(offset, budget));
        }

        if (emitted.Forwarding)
        {
            int island = labels.OffsetOf(_islandOf[index]);
            WriteForwarding(code.Slice(island, EmittedSite.IslandLength), block.Address + island, site + budget, block, number);
            int distance = island - (offset + 2);
            record.Forward = distance is >= sbyte.MinValue and <= sbyte.MaxValue ? (sbyte)distance : (sbyte)0;
        }
    }

    /// <summary>Gives a site what it follows; its bytes are put there under the patch lock.</summary>
    private void Place(EmittedSetting follows, CodeLabels labels, CodeBlock block, int number, int length)
    {
        uint start = (uint)(block.Address - _arena.Address);
        SettingSite setting = follows.Place(
            block.Slots!, Array.ConvertAll(follows.Labels, l => l == 0 ? 0 : start + (uint)labels.OffsetOf(_placed[l])));
        if (setting.CheckReach(block.AddressOf(number), length) is PatchDiagnostic error)
        {
            throw new PatchException(error);
        }

        block.SetSetting(number, setting);
    }

    /// <summary>Makes the stub that loads a site's argument and goes on through its slot.</summary>
    private ArgumentCode MakeStub(in EmittedSite emitted, uint site, SlotTable slots)
    {
        VirtualAddress slot = slots.AddressOf(emitted.Kind.Slot);
        return _arena.Arguments.TryAdd(site, emitted.Argument, slot, isSlot: true, out VirtualAddress stub, out PatchDiagnostic? error)
            ? emitted.Argument with { Stub = (uint)(stub - _arena.Address) }
            : throw new PatchException(error!); // no room: slots are in the arena, and so in reach
    }

    private static void WriteForwarding(Span<byte> island, VirtualAddress address, VirtualAddress end, CodeBlock block, int number)
    {
        SlotTable slots = block.Slots!;
        int slot = block.KindOf(number).Slot;
        bool jump = slots.Layout[slot].Kind == SlotKind.Jump;
        Span<byte> call = island[..PrefixPadding.IndirectLength];
        if (block.ArgumentOf(number) is { IsNone: false } argument)
        {
            SlotTable.WriteBranch(call, address, block.Arena.Address + argument.Stub, jump);
        }
        else
        {
            PrefixPadding.WriteIndirect(call, address, slots.AddressOf(slot), jump);
        }

        island[call.Length] = 0xe9; // jmp rel32 to the site's end
        BinaryPrimitives.WriteInt32LittleEndian(island[(call.Length + 1)..], (int)(end - (address + EmittedSite.IslandLength)));
    }
}
