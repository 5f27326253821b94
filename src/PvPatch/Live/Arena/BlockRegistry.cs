using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Live;

/// <summary>
/// The blocks of an arena: those in use in the order they were emitted; and all that may still be run, retired ones too, by address. Looking one up takes no lock and
/// allocates nothing, so that it can be done from anywhere, while others emit, retire and patch.
/// </summary>
internal sealed class BlockRegistry(ArenaMemory memory)
{
    private const int PageSize = 4096;

    private readonly Lock _lock = new();
    private readonly List<CodeBlock?> _blocks = []; // by CodeBlock.Number; nothing where one was retired
    private int _retired;

    // For each page the blocks that lie in it, at most 64; an array is never changed, but replaced.
    private readonly CodeBlock[]?[] _pages = new CodeBlock[(memory.Size + PageSize - 1) / PageSize][];

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

    /// <summary>Takes retired blocks from those in use. By address they are found until they are forgotten.</summary>
    public void Drop(ReadOnlySpan<CodeBlock> retired)
    {
        lock (_lock)
        {
            foreach (CodeBlock block in retired)
            {
                _blocks[block.Number] = null;
            }

            _retired += retired.Length;
            if (_retired <= _blocks.Count / 2)
            {
                return;
            }

            // The rest moves together now and then: each block retired costs the same, however many there are.
            _blocks.RemoveAll(static b => b is null);
            _retired = 0;
            for (int i = 0; i < _blocks.Count; i++)
            {
                _blocks[i]!.Number = i;
            }
        }
    }

    /// <summary>Forgets a block nobody can be inside any more.</summary>
    public void Forget(CodeBlock block)
    {
        lock (_lock)
        {
            foreach (ref CodeBlock[]? page in PagesOf(block))
            {
                Volatile.Write(ref page, [.. page!.Where(b => b != block)]);
            }
        }
    }

    /// <summary>The blocks in the page of an address; none where the arena was disposed of.</summary>
    public ReadOnlySpan<CodeBlock> InPageOf(VirtualAddress address) =>
        memory.IsDisposed || !memory.Contains(address, 1) ? default : Volatile.Read(ref _pages[(address - memory.Start) / PageSize]);

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

    private Span<CodeBlock[]?> PagesOf(CodeBlock block)
    {
        long offset = block.Address - memory.Start;
        int first = (int)(offset / PageSize);
        return _pages.AsSpan(first, (int)((offset + block.Length - 1) / PageSize) - first + 1);
    }
}
