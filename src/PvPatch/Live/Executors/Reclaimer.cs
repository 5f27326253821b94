namespace PvPatch.Live;

/// <summary>Blocks that were given up, until no executor can be inside them.</summary>
internal sealed class Reclaimer(CodeArena arena)
{
    private readonly Lock _lock = new();
    private readonly List<(CodeBlock Block, GracePeriod? Ticket)> _waiting = [];

    /// <summary>Queues blocks whose sites are no longer written; of several blocks of the same code one.</summary>
    public void Add(CodeBlock[] blocks)
    {
        // Who enters behind this barrier can't be on the way into the block any more: the host promised not to enter it.
        GracePeriod? ticket = arena.RunBarrier() ? arena.Executors.Begin() : null;
        lock (_lock)
        {
            foreach (CodeBlock block in blocks)
            {
                _waiting.Add((block, ticket));
            }
        }
    }

    /// <summary>Frees what can be freed. Only while the arena's memory is in use.</summary>
    public long Run()
    {
        var over = new List<CodeBlock>();
        lock (_lock)
        {
            // Without a barrier nothing can be known, and nothing is reused: it stays until the arena goes.
            _waiting.RemoveAll(w =>
            {
                bool isOver = w.Ticket is { IsOver: true };
                if (isOver)
                {
                    over.Add(w.Block);
                }

                return isOver;
            });
        }

        long freed = 0;
        foreach (CodeBlock block in over)
        {
            foreach (CodeBlock same in block.SameCode)
            {
                arena.Registry.Forget(same);
                same.Slots?.Kinds.Remove(same.Records); // no thread can go through a slot from there any more
                freed += arena.Islands.Free(same);
                LiveMetrics.SitesRemoved(same.SiteCount);
            }

            freed += block.Taken;

            // Whoever comes here all the same is trapped at once, not in the middle of what will be written here next.
            arena.Memory.Span(block.Address, block.Taken).Fill(0xcc);
            arena.Memory.GiveCode(block.Address, block.Taken, wereRun: true);
        }

        return freed;
    }
}
