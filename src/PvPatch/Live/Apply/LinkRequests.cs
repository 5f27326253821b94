using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>What became of a request for a link. See <see cref="LivePatcher.RequestLink(SiteLink)"/>.</summary>
public enum LinkRequestStatus : byte
{
    /// <summary>It is queued.</summary>
    Queued,

    /// <summary>Nothing was noted: a request for the same site is queued already, to this target or another.</summary>
    AlreadyQueued,

    /// <summary>Nothing was noted: as many requests as there is room for are queued. There is room again behind the next batch.</summary>
    QueueFull,

    /// <summary>
    /// Nothing was noted, and asking again is no use: no site of this patcher's operations, the site's or the target's block was retired, or
    /// the patcher was disposed of.
    /// </summary>
    Refused,
}

/// <summary>
/// The links that generated code has asked for: a bounded queue, many threads put in, the one that holds the patch lock takes out. Putting
/// in waits for nobody and allocates nothing but the queue itself, once.
/// </summary>
/// <remarks>
/// A cell's turn says whose it is:
/// <code>
/// turn = p          free for the request of position p
/// turn = p + 1      holds the request of position p
/// turn = p + size   taken out, free for the next lap
/// </code>
/// A thread takes a position by moving the tail, then fills the cell, then turns it. One that is stopped in between holds up those behind
/// it, which a batch finds later; nobody waits.
/// </remarks>
internal sealed class LinkRequests(CodeArena arena, SlotTable slots)
{
    private const int CapacityBits = 10;
    public const int Capacity = 1 << CapacityBits;
    private const int Mask = Capacity - 1;

    private readonly List<LinkRequest> _taken = [];
    private Cell[]? _cells;
    private long[]? _last; // by a hash of the site: position + 1 of the request that was queued last; 0: none was
    private long _tail;
    private long _head; // moved under the patch lock

    /// <summary>How many are queued; a moment later it may be more.</summary>
    public int Count => (int)Math.Clamp(Volatile.Read(ref _tail) - Volatile.Read(ref _head), 0, Capacity);

    /// <summary>Queues a request. From any thread, inside generated code or not.</summary>
    public LinkRequestStatus Add(in SiteLink link)
    {
        CodeBlock? target = null;
        if (link.Site.Block is not { IsRetired: false } block || !ReferenceEquals(block.Slots, slots)
            || block.SettingOf(link.Site.Index) is not null
            || (link.Target is VirtualAddress address && (target = arena.Ledger.BlockAt(address)) is { IsRetired: true }))
        {
            return LinkRequestStatus.Refused;
        }

        Cell[] cells = Volatile.Read(ref _cells) ?? MakeCells();
        int index = link.Site.Index;
        ref SiteRecord record = ref block.Records[index];
        ref long last = ref _last![record.Offset * 0x9e3779b1u >> 32 - CapacityBits];
        if (IsQueued(cells, Volatile.Read(ref last), block, index))
        {
            return LinkRequestStatus.AlreadyQueued;
        }

        while (true)
        {
            long position = Volatile.Read(ref _tail);
            ref Cell cell = ref cells[position & Mask];
            long turn = Volatile.Read(ref cell.Turn);
            if (turn < position)
            {
                return LinkRequestStatus.QueueFull; // it still holds the request of a lap ago
            }

            if (turn == position && Interlocked.CompareExchange(ref _tail, position + 1, position) == position)
            {
                cell.Request = new LinkRequest(link, target, record.State == LiveSiteState.Linked, block.BytesOf(index));
                Volatile.Write(ref cell.Turn, position + 1);
                Volatile.Write(ref last, position + 1);
                arena.Executors.HasRequests = true;
                return LinkRequestStatus.Queued;
            }
        }
    }

    /// <summary>Takes all requests out and applies those that still stand as one batch. Under the patch lock.</summary>
    /// <param name="apply">Applies a set of changes.</param>
    /// <returns>What was done; a warning for each request that was not carried out (PV8050).</returns>
    public ApplyResult Run(Func<LiveChanges, ApplyReport, ApplyResult> apply)
    {
        var declined = new List<PatchDiagnostic>();
        try
        {
            TakeOut();
            var links = new List<SiteLink>(_taken.Count);
            foreach (LinkRequest request in _taken)
            {
                if (Overtaken(request) is string why)
                {
                    declined.Add(NotMade(request.Link, why));
                }
                else
                {
                    links.Add(request.Link);
                }
            }

            while (true)
            {
                var report = new ApplyReport("requested links");
                declined.ForEach(d => report.Add(d));
                ApplyResult result = apply(new LiveChanges().Link(links), report);
                if (result.Status == ApplyStatus.Refused && TryDecline(links, result.Diagnostics, declined))
                {
                    continue;
                }

                if (result.Status is ApplyStatus.Refused or ApplyStatus.RolledBack)
                {
                    links.ForEach(l => Add(l));
                }

                return result;
            }
        }
        finally
        {
            _taken.Clear();
        }
    }

    /// <summary>Leaves out the links that a refused batch names, so that one that can't be made does not keep the others from it.</summary>
    /// <returns>Whether there was any.</returns>
    private static bool TryDecline(List<SiteLink> links, IReadOnlyList<PatchDiagnostic> findings, List<PatchDiagnostic> declined) =>
        links.RemoveAll(link =>
        {
            PatchDiagnostic? finding = findings.FirstOrDefault(f => f.Severity == DiagnosticSeverity.Error
                && f.Address is VirtualAddress address && (address == link.Site.Address || address == link.Target));
            if (finding is not null)
            {
                declined.Add(NotMade(link, $"{finding.Code}: {finding.Message}"));
            }

            return finding is not null;
        }) > 0;

    private static PatchDiagnostic NotMade(SiteLink link, string why) =>
        PatchDiagnostic.Warning(DiagnosticCodes.RequestNotMade, $"a link that was requested is not made: {why}") with
        {
            SiteIndex = link.Site.Index,
            Address = link.Site.Address,
            Found = link.Target is VirtualAddress target ? $"a request to lead to {target}" : "a request to unlink",
        };

    /// <summary>Why a request no longer stands.</summary>
    private string? Overtaken(in LinkRequest request)
    {
        (SiteLink link, CodeBlock? block) = (request.Link, request.TargetBlock);
        if (link.Site.Block.IsRetired)
        {
            return "the site's block was retired meanwhile";
        }

        // The address alone could be another block's by now.
        if (block is { IsRetired: true } || (block is null && link.Target is VirtualAddress target && arena.Ledger.BlockAt(target) is not null))
        {
            return "the target's block was retired meanwhile";
        }

        // Bodies may have changed, for backends are switched: what counts is whether it is linked, and to what.
        bool isLinked = link.Site.Record.State == LiveSiteState.Linked;
        bool isSame = isLinked == request.WasLinked && (!isLinked || link.Site.Block.BytesOf(link.Site.Index).Equals(request.Bytes));
        bool isDone = isLinked ? link.Site.Target == link.Target : link.Target is null;
        return isSame || isDone ? null : "the site was linked otherwise or unlinked meanwhile";
    }

    private void TakeOut()
    {
        for (int i = 0; _cells is not null && i < Capacity; i++)
        {
            ref Cell cell = ref _cells[_head & Mask];
            if (Volatile.Read(ref cell.Turn) != _head + 1)
            {
                return; // none, or not filled yet
            }

            _taken.Add(cell.Request);
            cell.Request = default; // it keeps no block alive
            Volatile.Write(ref cell.Turn, _head + Capacity);
            Volatile.Write(ref _head, _head + 1);
        }
    }

    /// <summary>Whether the request that was queued last under a site's hash is that site's, and still queued.</summary>
    private static bool IsQueued(Cell[] cells, long turn, CodeBlock block, int site)
    {
        ref Cell cell = ref cells[turn - 1 & Mask];
        if (turn == 0 || Volatile.Read(ref cell.Turn) != turn)
        {
            return false;
        }

        LiveSite queued = cell.Request.Link.Site;
        Volatile.ReadBarrier(); // what was read is the request's only if it is still there behind
        return ReferenceEquals(queued.Block, block) && queued.Index == site && Volatile.Read(ref cell.Turn) == turn;
    }

    private Cell[] MakeCells()
    {
        var cells = new Cell[Capacity];
        for (int i = 0; i < Capacity; i++)
        {
            cells[i].Turn = i;
        }

        _ = Interlocked.CompareExchange(ref _last, new long[Capacity], null);
        return Interlocked.CompareExchange(ref _cells, cells, null) ?? cells;
    }

    private struct Cell
    {
        public long Turn;
        public LinkRequest Request;
    }
}

/// <summary>A request, and what held when it was made.</summary>
/// <param name="Link">The link.</param>
/// <param name="TargetBlock">The block its target lies in.</param>
/// <param name="WasLinked">Whether the site was linked.</param>
/// <param name="Bytes">What the site held, up to 16 bytes of it; read while a batch may have been writing it.</param>
internal readonly record struct LinkRequest(SiteLink Link, CodeBlock? TargetBlock, bool WasLinked, SiteBytes Bytes);
