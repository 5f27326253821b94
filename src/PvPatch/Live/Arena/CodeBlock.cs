using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Runtime.InteropServices;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// A piece of generated code in an arena, and its sites, which are of one layout. Made by
/// <see cref="CodeArena.Emit(Iced.Intel.Assembler, SiteEmitter)"/> and its like, or by <see cref="CodeReservation"/>.
/// </summary>
public sealed unsafe class CodeBlock
{
    // What a two-byte jump at a site reaches from behind itself, and the forwarding island there.
    private const int FarthestBefore = 128 - 2;
    private const int FarthestBehind = 2 + 127 + EmittedSite.IslandLength;

    private readonly SiteRecord[] _records;
    private readonly uint _offset;

    // Bytes 8 to 15 of each site, once one is longer than 8.
    private ulong[]? _behind;

    // What no record has room for: the bytes of sites that a host's own emitter wrote, and what sites longer than 16 bytes hold. Few blocks
    // have any.
    private Dictionary<int, byte[]>? _originals;
    private Dictionary<int, byte[]>? _longBytes;

    // Of the sites that follow settings, once there is one.
    private SettingSite?[]? _settings;
    private LinkSet _linksInto;
    private CodeBlock[]? _sameCode;
    private List<LiveSetting>? _callsInto;

    internal CodeBlock(CodeArena arena, SlotTable? slots, VirtualAddress address, int length, SiteRecord[] records)
    {
        Arena = arena;
        Slots = slots;
        _offset = (uint)(address - arena.Memory.Start);
        Length = length;
        _records = records;
    }

    /// <summary>The arena.</summary>
    public CodeArena Arena { get; }

    /// <summary>Run address of the first byte, a multiple of 64.</summary>
    public VirtualAddress Address => Arena.Memory.Start + _offset;

    /// <summary>Length of the code in bytes.</summary>
    public int Length { get; }

    /// <summary>Number of sites.</summary>
    public int SiteCount => _records.Length;

    /// <summary>Whether the block was retired: its sites are not written any more.</summary>
    public bool IsRetired { get; internal set; }

    /// <summary>The slots its sites name; nothing where it has no sites.</summary>
    internal SlotTable? Slots { get; }

    /// <summary>Place among the blocks in use. Kept by <see cref="BlockRegistry"/>.</summary>
    internal int Number { get; set; }

    /// <summary>
    /// Where it is in the plan that is being made, if it is there. Kept by <see cref="PlannedSites"/> under the patch lock.
    /// </summary>
    internal int PlanNumber { get; set; }

    /// <summary>The blocks of the same code, one for each layout; this one among them. They are retired together.</summary>
    [AllowNull]
    internal CodeBlock[] SameCode
    {
        get => _sameCode ?? [this];
        set => _sameCode = value;
    }

    /// <summary>
    /// The sites that are linked to an address in it, kept once for all blocks of the same code by <see cref="LinkLedger"/>.
    /// </summary>
    internal ref LinkSet LinksInto => ref (_sameCode?[0] ?? this)._linksInto;

    /// <summary>The static calls that lead into it, kept as the links are.</summary>
    internal List<LiveSetting> CallsInto => SameCode[0]._callsInto ??= [];

    internal SiteRecord[] Records => _records;

    /// <summary>Bytes its code takes in the arena, slack included: once for all blocks of the same code.</summary>
    internal int Taken => CodeReservation.Round(Length);

    /// <summary>A site.</summary>
    /// <param name="index">Its place in order of address.</param>
    /// <returns>The site.</returns>
    public LiveSite this[int index]
    {
        get
        {
            ArgumentOutOfRangeException.ThrowIfNegative(index);
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(index, _records.Length);
            return new LiveSite(this, index);
        }
    }

    /// <summary>The site a <see cref="SiteEmitter"/> emitted.</summary>
    /// <param name="ticket">What the emitter gave.</param>
    /// <returns>The site.</returns>
    public LiveSite this[SiteTicket ticket] => this[ticket.Index];

    /// <summary>Whether an address lies in the code.</summary>
    /// <param name="address">A run address.</param>
    /// <returns>Whether it does.</returns>
    public bool Contains(VirtualAddress address) => address >= Address && address.Value - Address.Value < (ulong)Length;

    /// <summary>The code as it is now; a copy.</summary>
    /// <returns>The bytes.</returns>
    /// <exception cref="PatchException">The arena was disposed of (PV8004).</exception>
    public byte[] ToArray()
    {
        using ArenaMemory.Usage usage = Arena.Memory.Use();
        return Arena.Memory.Span(Address, Length).ToArray();
    }

    /// <inheritdoc/>
    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture, $"{Address}+0x{Length:x}, {SiteCount} sites{(IsRetired ? ", retired" : "")}");

    /// <summary>
    /// The site that an offset from the arena's start belongs to: of one of its own bytes, or of its forwarding island. Allocates nothing.
    /// </summary>
    internal bool TryFindSite(uint offset, out LiveSite site)
    {
        ReadOnlySpan<SiteRecord> records = _records;
        int behind = FirstBehind(records, offset);
        if (behind > 0 && offset - records[behind - 1].Offset < KindOf(behind - 1).Budget)
        {
            site = new LiveSite(this, behind - 1);
            return true;
        }

        for (int i = behind - 1; i >= 0 && offset - records[i].Offset <= FarthestBehind; i--)
        {
            if (IsInForwarding(records[i], offset))
            {
                site = new LiveSite(this, i);
                return true;
            }
        }

        for (int i = behind; i < records.Length && records[i].Offset - offset <= FarthestBefore; i++)
        {
            if (IsInForwarding(records[i], offset))
            {
                site = new LiveSite(this, i);
                return true;
            }
        }

        site = default;
        return false;
    }

    internal VirtualAddress AddressOf(int site) => Arena.Memory.Start + _records[site].Offset;

    internal PatchSite KindOf(int site) => Slots!.Kinds[_records[site].Kind];

    /// <summary>What a site follows, where that is settings; nothing where it is a slot's.</summary>
    internal SettingSite? SettingOf(int site) => _settings?[site];

    internal void SetSetting(int site, SettingSite setting) => (_settings ??= new SettingSite?[_records.Length])[site] = setting;

    /// <summary>
    /// Gives the sites that follow settings the bytes for what these are now. Under the patch lock, before anyone can run the block.
    /// </summary>
    internal void SettleSettings()
    {
        for (int i = 0; _settings is not null && i < _settings.Length; i++)
        {
            if (_settings[i] is not SettingSite setting)
            {
                continue;
            }

            int length = KindOf(i).Budget;
            SiteBytes bytes = setting.Decide(AddressOf(i), length, out PatchAction action);
            bytes.CopyTo(Arena.Memory.Span(AddressOf(i), length), length);
            SetBytes(i, bytes);
            _records[i].Set(LiveSiteState.Bound, SettingPlanner.FormOf(action), action, PatchReason.None);
        }
    }

    /// <summary>Makes the sites that follow settings known to these. Under the same lock, when nothing can fail any more.</summary>
    internal void JoinSettings()
    {
        for (int i = 0; _settings is not null && i < _settings.Length; i++)
        {
            foreach (LiveSetting setting in _settings[i] is SettingSite site ? site.Settings : [])
            {
                setting.Add(new LiveSite(this, i));
            }
        }
    }

    /// <summary>The bytes the site was registered with.</summary>
    internal byte[] OriginalOf(int site)
    {
        if (_originals is not null && _originals.TryGetValue(site, out byte[]? foreign))
        {
            return foreign;
        }

        PatchSite kind = KindOf(site);
        byte[] bytes = new byte[kind.Budget];
        Slots!.WriteOriginal(kind, AddressOf(site), bytes);
        return bytes;
    }

    /// <summary>
    /// Where the direct call or jump of a site leads: in a site of one instruction that ends where the site ends, in a longer one that
    /// begins where it begins.
    /// </summary>
    internal VirtualAddress? DirectTargetOf(int site)
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
        (_originals ??= []).Add(site, bytes);
    }

    /// <summary>What a site longer than 16 bytes is known to hold.</summary>
    internal byte[] LongBytesOf(int site) =>
        _longBytes is not null && _longBytes.TryGetValue(site, out byte[]? bytes) ? bytes : OriginalOf(site);

    internal void SetLongBytes(int site, byte[] bytes) => (_longBytes ??= [])[site] = bytes;

    /// <summary>The first site that begins behind an offset.</summary>
    private static int FirstBehind(ReadOnlySpan<SiteRecord> records, uint offset)
    {
        int low = 0;
        int high = records.Length;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (records[middle].Offset <= offset)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        return low;
    }

    private static bool IsInForwarding(in SiteRecord record, uint offset)
    {
        long into = offset - (record.Offset + 2L + record.Forward);
        return record.Forward != 0 && into is >= 0 and < EmittedSite.IslandLength;
    }
}

/// <summary>
/// What is remembered of a live site: 20 bytes. Where, what kind, and the first eight bytes it holds now (zero behind its length); its
/// block has the rest, if there is any.
/// </summary>
[StructLayout(LayoutKind.Sequential, Pack = 4, Size = SizeInBytes)]
internal struct SiteRecord
{
    public const int SizeInBytes = 20;

    /// <summary>From the arena's start.</summary>
    public uint Offset;

    /// <summary>Index in the slot table's kinds.</summary>
    public int Kind;

    private byte _classAndState;
    private byte _formAndAction;

    /// <summary>From the end of a two-byte jump at the site's start to its forwarding island; 0 where it has none.</summary>
    public sbyte Forward;

    private byte _reason;

    /// <summary>Bytes 0 to 7 of what is there.</summary>
    public ulong Low;

    /// <summary>Notes what a batch made of the site.</summary>
    public void Set(LiveSiteState state, LiveForm form, PatchAction action, PatchReason reason)
    {
        State = state;
        _formAndAction = (byte)((int)form | (int)action << 3);
        _reason = (byte)reason;
    }

    public SiteClass Class
    {
        readonly get => (SiteClass)(_classAndState & 7);
        set => _classAndState = (byte)((_classAndState & ~7) | (int)value);
    }

    public LiveSiteState State
    {
        readonly get => (LiveSiteState)(_classAndState >> 3 & 7);
        set => _classAndState = (byte)((_classAndState & ~0x38) | (int)value << 3);
    }

    /// <summary>Whether the original bytes are the host's own, kept by the block; else they follow from the kind.</summary>
    public bool IsForeign
    {
        readonly get => (_classAndState & 0x40) != 0;
        set => _classAndState = (byte)((_classAndState & ~0x40) | (value ? 0x40 : 0));
    }

    public readonly PatchReason Reason => (PatchReason)_reason;

    public readonly LiveForm Form => (LiveForm)(_formAndAction & 7);

    public readonly PatchAction Action => (PatchAction)(_formAndAction >> 3);
}
