using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Live;

/// <summary>
/// The blocks of an arena: those in use in the order they were emitted; those that were retired, until no executor can be inside them; and
/// both by address. Looking one up takes no lock and allocates nothing, so that it can be done from anywhere, while others emit, retire and
/// patch.
/// </summary>
internal sealed class BlockRegistry(CodeArena arena)
{
    private const int PageSize = 4096;

    private readonly Lock _lock = new();
    private long _siteCount;
    private readonly List<CodeBlock?> _blocks = []; // by CodeBlock.Number; nothing where one was retired
    private readonly List<(CodeBlock Block, GracePeriod? Period)> _retired = []; // of the blocks of the same code one
    private int _gaps; // in the blocks

    // For each page the blocks that lie in it, at most 64; an array is never changed, but replaced.
    private readonly CodeBlock[]?[] _pages = new CodeBlock[(arena.Memory.Size + PageSize - 1) / PageSize][];

    /// <summary>Number of sites, those of retired blocks that are not reclaimed yet included. Takes no lock.</summary>
    public long SiteCount => Interlocked.Read(ref _siteCount);

    /// <summary>The blocks in use, a copy.</summary>
    public CodeBlock[] ToArray()
    {
        lock (_lock)
        {
            return [.. _blocks.OfType<CodeBlock>()];
        }
    }

    /// <summary>Copies the blocks of one layout that have sites into a list that is kept from batch to batch.</summary>
    public void CopyTo(SlotTable slots, List<CodeBlock> destination)
    {
        destination.Clear();
        lock (_lock)
        {
            foreach (CodeBlock? block in _blocks)
            {
                if (block is not null && ReferenceEquals(block.Slots, slots) && block.SiteCount > 0)
                {
                    destination.Add(block);
                }
            }
        }
    }

    /// <summary>Adds a block that is about to be run.</summary>
    public void Add(CodeBlock block)
    {
        Interlocked.Add(ref _siteCount, block.SiteCount);
        lock (_lock)
        {
            block.Number = _blocks.Count;
            _blocks.Add(block);
            foreach (ref CodeBlock[]? page in PagesOf(block))
            {
                Volatile.Write(ref page, [.. page ?? [], block]);
            }
        }
    }

    /// <summary>
    /// Takes blocks from those in use: their sites are no longer written. By address they are found until they are reclaimed.
    /// </summary>
    /// <param name="blocks">Blocks in use, with all of the same code.</param>
    public void Retire(ReadOnlySpan<CodeBlock> blocks)
    {
        Drop(blocks);

        // Who enters behind this barrier can't be on the way into the block any more: the host promised not to enter it.
        GracePeriod? period = arena.RunBarrier() ? arena.Executors.Begin() : null;
        lock (_lock)
        {
            foreach (CodeBlock block in blocks)
            {
                if (ReferenceEquals(block, block.SameCode[0]))
                {
                    _retired.Add((block, period));
                }
            }
        }
    }

    /// <summary>Frees retired blocks that nobody can be inside any more. Only while the arena's memory is in use.</summary>
    /// <returns>Bytes made free.</returns>
    public long Reclaim()
    {
        var over = new List<CodeBlock>();
        lock (_lock)
        {
            // Without a barrier nothing can be known, and nothing is reused: it stays until the arena goes.
            _retired.RemoveAll(r =>
            {
                bool isOver = r.Period is { IsOver: true };
                if (isOver)
                {
                    over.Add(r.Block);
                }

                return isOver;
            });
        }

        long freed = 0;
        foreach (CodeBlock block in over)
        {
            foreach (CodeBlock same in block.SameCode)
            {
                Forget(same);
                same.Slots?.Forget(same); // no thread can go through a slot from there any more
                freed += arena.Islands.Free(same) + arena.Arguments.Free(same);
                Interlocked.Add(ref _siteCount, -same.SiteCount);
            }

            freed += block.Taken;

            // Whoever comes here all the same is trapped at once, not in the middle of what will be written here next.
            arena.Memory.Span(block.Address, block.Taken).Fill(0xcc);
            arena.Memory.GiveCode(block.Address, block.Taken, wereRun: true);
        }

        return freed;
    }

    /// <summary>The blocks in the page of an address; none where the arena was disposed of.</summary>
    public ReadOnlySpan<CodeBlock> InPageOf(VirtualAddress address) =>
        arena.Memory.IsDisposed || !arena.Memory.Contains(address, 1)
            ? default : Volatile.Read(ref _pages[(address - arena.Address) / PageSize]);

    /// <summary>The block at an address; where the same code has several, the first.</summary>
    public bool TryFind(VirtualAddress address, [NotNullWhen(true)] out CodeBlock? block)
    {
        foreach (CodeBlock candidate in InPageOf(address))
        {
            if (candidate.Contains(address))
            {
                block = candidate;
                return true;
            }
        }

        block = null;
        return false;
    }

    private void Drop(ReadOnlySpan<CodeBlock> retired)
    {
        lock (_lock)
        {
            foreach (CodeBlock block in retired)
            {
                _blocks[block.Number] = null;
            }

            _gaps += retired.Length;
            if (_gaps <= _blocks.Count / 2)
            {
                return;
            }

            // The rest moves together now and then: each block retired costs the same, however many there are.
            _blocks.RemoveAll(static b => b is null);
            _gaps = 0;
            for (int i = 0; i < _blocks.Count; i++)
            {
                _blocks[i]!.Number = i;
            }
        }
    }

    private void Forget(CodeBlock block)
    {
        lock (_lock)
        {
            foreach (ref CodeBlock[]? page in PagesOf(block))
            {
                Volatile.Write(ref page, [.. page!.Where(b => b != block)]);
            }
        }
    }

    private Span<CodeBlock[]?> PagesOf(CodeBlock block)
    {
        long offset = block.Address - arena.Address;
        int first = (int)(offset / PageSize);
        return _pages.AsSpan(first, (int)((offset + block.Length - 1) / PageSize) - first + 1);
    }
}
