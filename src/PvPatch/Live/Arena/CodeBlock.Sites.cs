using System.Buffers.Binary;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <content>What the sites of a block are and hold, as far as it does not stand in their records.</content>
public sealed unsafe partial class CodeBlock
{
    internal VirtualAddress AddressOf(int site) => Arena.Memory.Start + _records[site].Offset;

    internal PatchSite KindOf(int site) => Slots!.KindOf(_records[site].Kind);

    /// <summary>Whether any site has an argument.</summary>
    internal bool HasArguments => _rare?.Arguments is not null;

    /// <summary>What loads a site's argument; none where it has none.</summary>
    internal ArgumentCode ArgumentOf(int site) => _rare?.Arguments is { } arguments ? arguments[site] : default;

    /// <summary>Gives a site its argument; what it is emitted with leads to its stub.</summary>
    internal void SetArgument(int site, in ArgumentCode argument)
    {
        _records[site].IsForeign = true;
        (Rare.Arguments ??= new ArgumentCode[_records.Length])[site] = argument;
    }

    /// <summary>The bytes the site was registered with.</summary>
    internal byte[] OriginalOf(int site)
    {
        if (_rare?.Originals is { } originals && originals.TryGetValue(site, out byte[]? foreign))
        {
            return foreign;
        }

        PatchSite kind = KindOf(site);
        byte[] bytes = new byte[kind.Budget];
        if (ArgumentOf(site) is { IsNone: false } argument)
        {
            bool jump = Slots!.Layout[kind.Slot].Kind == SlotKind.Jump;
            SlotTable.WriteBranch(bytes, AddressOf(site), Arena.Address + argument.Stub, jump);
        }
        else
        {
            Slots!.WriteOriginal(kind, AddressOf(site), bytes);
        }

        return bytes;
    }

    /// <summary>
    /// Where the direct call or jump of a site leads: in a site of one instruction that ends where the site ends, in a longer one that
    /// begins where it begins. What loads the site's argument before is left out.
    /// </summary>
    internal VirtualAddress? DirectTargetOf(int site)
    {
        VirtualAddress? entry = EntryOf(site);
        return entry is not null && !ArgumentOf(site).IsNone ? Arena.Arguments.TargetOf(_records[site].Offset, entry.Value) : entry;
    }

    private VirtualAddress? EntryOf(int site)
    {
        ref SiteRecord record = ref _records[site];
        int budget = KindOf(site).Budget;
        VirtualAddress address = AddressOf(site);
        if (record.Form is LiveForm.Call or LiveForm.Jump)
        {
            if (budget == BranchCode.ShortLength)
            {
                return address + budget + (sbyte)(record.Low >> 8);
            }

            int shift = 8 * (budget - sizeof(int)); // the displacement comes last
            (ulong low, ulong high) = BytesOf(site);
            ulong displacement = shift >= 64 ? high >> shift - 64 : low >> shift | high << 1 << 63 - shift;
            return address + budget + (int)displacement;
        }

        if (record.Form != LiveForm.InPlace || record.Action is not (PatchAction.Call or PatchAction.ThunkCall or PatchAction.Jump))
        {
            return null;
        }

        ulong first = budget <= 16 ? record.Low : BinaryPrimitives.ReadUInt64LittleEndian(LongBytesOf(site));
        return (byte)first is 0xe8 or 0xe9 ? address + 5 + (int)(first >> 8) : null;
    }

    /// <summary>Bytes 8 to 15 of what a site is known to hold.</summary>
    internal ulong BytesBehind(int site) => _behind is null ? 0 : _behind[site];

    /// <summary>What a site of up to 16 bytes is known to hold.</summary>
    internal SiteBytes BytesOf(int site) => new(_records[site].Low, BytesBehind(site));

    internal void SetBytes(int site, SiteBytes bytes)
    {
        _records[site].Low = bytes.Low;
        if (_behind is not null)
        {
            _behind[site] = bytes.High;
        }
    }

    /// <summary>Makes room for bytes 8 to 15; before the first site that has some gets its bytes.</summary>
    internal void MakeRoomBehind() => _behind ??= new ulong[_records.Length];

    /// <summary>Keeps the bytes of a site that a host's own emitter wrote, which don't follow from its kind.</summary>
    internal void KeepOriginal(int site, byte[] bytes)
    {
        _records[site].IsForeign = true;
        (Rare.Originals ??= []).Add(site, bytes);
    }

    /// <summary>Whether any site was committed with a direct call.</summary>
    internal bool HasOwnCalls => _rare?.OwnCalls is not null;

    /// <summary>The direct call or jump that a site was committed with, and its form; nothing where it went through its slot.</summary>
    internal (byte[] Bytes, LiveForm Form)? OwnCallOf(int site) =>
        _rare?.OwnCalls is { } calls && calls.TryGetValue(site, out (byte[], LiveForm) call) ? call : null;

    /// <summary>
    /// Keeps a site's direct call or jump, which stands there until its slot is switched. From then on its original is the same code with
    /// the displacement of a stub that goes on through the slot.
    /// </summary>
    internal void KeepOwnCall(int site, byte[] bytes, int field, VirtualAddress stub, bool isSingle)
    {
        byte[] original = [.. bytes];
        int displacement = checked((int)(stub - (AddressOf(site) + field + sizeof(int)))); // in reach: one arena
        BinaryPrimitives.WriteInt32LittleEndian(original.AsSpan(field), displacement);
        KeepOriginal(site, original);
        bool jump = Slots!.Layout[KindOf(site).Slot].Kind == SlotKind.Jump;
        (Rare.OwnCalls ??= []).Add(site, (bytes, !isSingle ? LiveForm.InPlace : jump ? LiveForm.Jump : LiveForm.Call));
    }

    /// <summary>
    /// Leaves sites their own calls where nothing was switched yet, and leads them through their slots where something was. Under the patch
    /// lock, before anyone can run the block.
    /// </summary>
    internal void SettleOwnCalls()
    {
        foreach ((int site, (byte[] own, LiveForm form)) in _rare?.OwnCalls ?? [])
        {
            PatchSite kind = KindOf(site);
            bool isSwitched = Slots!.Bound[kind.Slot] is not null;
            byte[] bytes = isSwitched ? OriginalOf(site) : own;
            bytes.CopyTo(Arena.Memory.Span(AddressOf(site), bytes.Length));
            if (bytes.Length <= SiteBytes.MaxLength)
            {
                SetBytes(site, SiteBytes.From(bytes));
            }
            else
            {
                SetLongBytes(site, bytes);
            }

            if (!isSwitched)
            {
                _records[site].Set(LiveSiteState.Original, form, ActionOfOwnCall(site), PatchReason.None);
            }
        }
    }

    /// <summary>What a site's own call does.</summary>
    internal PatchAction ActionOfOwnCall(int site) =>
        Slots!.Layout[KindOf(site).Slot].Kind == SlotKind.Jump ? PatchAction.Jump : PatchAction.Call;

    /// <summary>What a site longer than 16 bytes is known to hold.</summary>
    internal byte[] LongBytesOf(int site) =>
        _rare?.LongBytes is { } known && known.TryGetValue(site, out byte[]? bytes) ? bytes : OriginalOf(site);

    internal void SetLongBytes(int site, byte[] bytes) => (Rare.LongBytes ??= [])[site] = bytes;

    /// <summary>What few blocks have, and no record has room for.</summary>
    private sealed class RareData
    {
        /// <summary>The bytes of sites that a host's own emitter wrote.</summary>
        public Dictionary<int, byte[]>? Originals;

        /// <summary>The direct calls that sites were committed with.</summary>
        public Dictionary<int, (byte[] Bytes, LiveForm Form)>? OwnCalls;

        /// <summary>What sites longer than 16 bytes hold.</summary>
        public Dictionary<int, byte[]>? LongBytes;

        /// <summary>What the sites that follow settings follow.</summary>
        public SettingSite?[]? Settings;

        /// <summary>The arguments of the sites.</summary>
        public ArgumentCode[]? Arguments;

        /// <summary>The static calls that lead into the block.</summary>
        public List<LiveSetting>? CallsInto;

        /// <summary>The slots that lead into the block.</summary>
        public List<(SlotTable Slots, int Slot)>? SlotsInto;

        /// <summary>The blocks of the same code, where there are several.</summary>
        public CodeBlock[]? SameCode;
    }
}
