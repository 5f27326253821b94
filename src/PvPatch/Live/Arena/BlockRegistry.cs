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
    private readonly List<CodeBlock> _blocks = [];

    // For each page the blocks that lie in it, at most 64; an array is never changed, but replaced.
    private readonly CodeBlock[]?[] _pages = new CodeBlock[(memory.Size + PageSize - 1) / PageSize][];

    /// <summary>The blocks in use, a copy.</summary>
    public CodeBlock[] ToArray()
    {
        lock (_lock)
        {
            return [.. _blocks];
        }
    }

    /// <summary>Copies the blocks of one layout that have sites into a list that is kept from batch to batch.</summary>
    public void CopyTo(SlotTable slots, List<CodeBlock> destination)
    {
        destination.Clear();
        lock (_lock)
        {
            foreach (CodeBlock block in _blocks)
            {
                if (ReferenceEquals(block.Slots, slots) && block.SiteCount > 0)
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
            _blocks.Add(block);
            foreach (ref CodeBlock[]? page in PagesOf(block))
            {
                Volatile.Write(ref page, [.. page ?? [], block]);
            }
        }
    }

    /// <summary>Takes the retired blocks from those in use. By address they are found until they are forgotten.</summary>
    public void DropRetired()
    {
        lock (_lock)
        {
            _blocks.RemoveAll(static b => b.IsRetired);
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

    /// <summary>The block at an address.</summary>
    public bool TryFind(VirtualAddress address, [NotNullWhen(true)] out CodeBlock? block)
    {
        block = null;
        if (memory.IsDisposed || !memory.Contains(address, 1) || Volatile.Read(ref _pages[(address - memory.Start) / PageSize]) is not CodeBlock[] page)
        {
            return false;
        }

        foreach (CodeBlock candidate in page)
        {
            if (candidate.Contains(address))
            {
                block = candidate;
                return true;
            }
        }

        return false;
    }

    private Span<CodeBlock[]?> PagesOf(CodeBlock block)
    {
        long offset = block.Address - memory.Start;
        int first = (int)(offset / PageSize);
        return _pages.AsSpan(first, (int)((offset + block.Length - 1) / PageSize) - first + 1);
    }
}
