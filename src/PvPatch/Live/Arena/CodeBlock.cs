using System.Globalization;

namespace PvPatch.Live;

/// <summary>
/// A piece of generated code in an arena, and its sites, which are of one layout. Made by
/// <see cref="CodeArena.Emit(Iced.Intel.Assembler, SiteEmitter)"/> and its like, or by <see cref="CodeReservation"/>.
/// </summary>
public sealed unsafe partial class CodeBlock
{
    // What a two-byte jump at a site reaches from behind itself, and the forwarding island there.
    private const int FarthestBefore = 128 - 2;
    private const int FarthestBehind = 2 + 127 + EmittedSite.IslandLength;

    // Blocks of a few sites are what a translator makes most: 80 bytes a block, and what few blocks need is made when it is needed.
    private const int RetiredBit = int.MinValue; // of the length, which is at most that of the arena

    private readonly SiteRecord[] _records;
    private readonly object _owner; // the slots its sites name, which know the arena; the arena itself where it has no sites
    private readonly uint _offset;
    private int _length;

    // Bytes 8 to 15 of each site, once one is longer than 8.
    private ulong[]? _behind;
    private LinkSet _linksInto;
    private RareData? _rare;

    internal CodeBlock(CodeArena arena, SlotTable? slots, VirtualAddress address, int length, SiteRecord[] records)
    {
        _owner = (object?)slots ?? arena;
        _offset = (uint)(address - arena.Memory.Start);
        _length = length;
        _records = records;
    }

    /// <summary>The arena.</summary>
    public CodeArena Arena => _owner is SlotTable slots ? slots.Arena : (CodeArena)_owner;

    /// <summary>Run address of the first byte, a multiple of 64.</summary>
    public VirtualAddress Address => Arena.Memory.Start + _offset;

    /// <summary>Length of the code in bytes.</summary>
    public int Length => _length & ~RetiredBit;

    /// <summary>Number of sites.</summary>
    public int SiteCount => _records.Length;

    /// <summary>Whether the block was retired: its sites are not written any more.</summary>
    public bool IsRetired => (_length & RetiredBit) != 0;

    /// <summary>
    /// Number of sites that are linked to an address in it, its own among them: of any arena, and of any layout. Blocks of the same code
    /// have them in common. After a faulted batch also those that may still lead there.
    /// </summary>
    public int IncomingLinkCount => LinkLedger.CountInto(this);

    /// <summary>
    /// The sites that are linked to an address in it, in order of address: what <see cref="SiteScope.LinkedInto"/> unlinks, patcher by
    /// patcher. A copy; a batch that is under way may have its new links in it already and its old ones still.
    /// </summary>
    public IReadOnlyList<LiveSite> IncomingLinks => LinkLedger.LinksInto([this], null);

    /// <summary>The slots its sites name; nothing where it has no sites.</summary>
    internal SlotTable? Slots => _owner as SlotTable;

    /// <summary>Place among the blocks in use. Kept by <see cref="BlockRegistry"/>.</summary>
    internal int Number { get; set; }

    /// <summary>
    /// Where it is in the plan that is being made, if it is there. Kept by <see cref="PlannedSites"/> under the patch lock.
    /// </summary>
    internal int PlanNumber { get; set; }

    /// <summary>The blocks of the same code, one for each layout; this one among them. They are retired together.</summary>
    internal CodeBlock[] SameCode
    {
        get => _rare?.SameCode ?? [this];
        set => Rare.SameCode = value;
    }

    /// <summary>
    /// The sites that are linked to an address in it, kept once for all blocks of the same code by <see cref="LinkLedger"/>.
    /// </summary>
    internal ref LinkSet LinksInto => ref First._linksInto;

    /// <summary>The static calls that lead into it, kept as the links are.</summary>
    internal IReadOnlyList<LiveSetting> CallsInto => First._rare?.CallsInto ?? [];

    /// <summary>Notes that a static call leads into it, or no longer does.</summary>
    internal void SetCalled(LiveSetting call, bool isCalled)
    {
        List<LiveSetting> calls = First.Rare.CallsInto ??= [];
        calls.Remove(call);
        if (isCalled)
        {
            calls.Add(call);
        }
    }

    /// <summary>The slots that lead into it, kept as the links are.</summary>
    internal IReadOnlyList<(SlotTable Slots, int Slot)> SlotsInto => First._rare?.SlotsInto ?? [];

    /// <summary>Notes that a slot leads into it, or no longer does.</summary>
    internal void SetHeld(SlotTable slots, int slot, bool isHeld)
    {
        List<(SlotTable, int)> into = First.Rare.SlotsInto ??= [];
        into.Remove((slots, slot));
        if (isHeld)
        {
            into.Add((slots, slot));
        }
    }

    internal SiteRecord[] Records => _records;

    private CodeBlock First => _rare?.SameCode?[0] ?? this; // of the blocks of the same code

    // What leads into a block is noted under another lock than what its sites hold, and one may come at the time of the other.
    private RareData Rare => _rare ?? Interlocked.CompareExchange(ref _rare, new RareData(), null) ?? _rare!;

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

    /// <summary>Makes it retired. Under the patch lock.</summary>
    internal void SetRetired() => _length |= RetiredBit;

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
