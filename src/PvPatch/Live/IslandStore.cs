using System.Buffers.Binary;
using PvPatch.Encoding;

namespace PvPatch.Live;

/// <summary>
/// Islands: for a site, a body of several instructions out of line, and behind it a jump to the site's end. Immutable once written, so a thread may be in one for
/// ever; kept as long as the site's block, so switching to and fro among the same backends makes each island once.
/// </summary>
internal sealed class IslandStore(ArenaMemory memory)
{
    private readonly Lock _lock = new();
    private readonly SmallPieces _pieces = new(memory);
    private readonly Dictionary<string, CodeContent> _contents = [];
    private readonly Dictionary<uint, List<Island>> _bySite = [];

    /// <summary>How many there are.</summary>
    public int Count { get; private set; }

    /// <summary>The one object for a body's content.</summary>
    public CodeContent Intern(AssembledBody body)
    {
        lock (_lock)
        {
            string key = CodeContent.KeyOf(body);
            if (!_contents.TryGetValue(key, out CodeContent? content))
            {
                content = new CodeContent(body);
                _contents.Add(key, content);
            }

            return content;
        }
    }

    /// <summary>The site's island with a content; written where there is none yet.</summary>
    /// <param name="site">The site, from the arena's start.</param>
    /// <param name="end">Where the island goes on: the site's end.</param>
    /// <param name="content">What it does.</param>
    /// <param name="address">Its run address.</param>
    /// <param name="outOfReach">Whether something it refers to is too far away; there is no error then.</param>
    /// <param name="error">No room.</param>
    public bool TryGet(uint site, VirtualAddress end, CodeContent content, out VirtualAddress address, out bool outOfReach, out PatchDiagnostic? error)
    {
        lock (_lock)
        {
            outOfReach = false;
            error = null;
            if (!_bySite.TryGetValue(site, out List<Island>? islands))
            {
                islands = [];
                _bySite.Add(site, islands);
            }

            foreach (Island island in islands)
            {
                if (ReferenceEquals(island.Content, content))
                {
                    address = island.Address;
                    return true;
                }
            }

            int length = content.MaxLength;
            if (!_pieces.TryTake(length, out address, out error))
            {
                return false;
            }

            if (!TryWrite(content, address, end))
            {
                _pieces.Give(address, length);
                outOfReach = true;
                return false;
            }

            islands.Add(new Island(content, address, length));
            Count++;
            LiveMetrics.Island(1);
            return true;
        }
    }

    /// <summary>The island an address lies in, for reports.</summary>
    public (VirtualAddress Site, VirtualAddress Address)? Find(VirtualAddress address)
    {
        lock (_lock)
        {
            foreach ((uint site, List<Island> islands) in _bySite)
            {
                foreach (Island island in islands)
                {
                    if (address >= island.Address && address.Value - island.Address.Value < (ulong)island.Length)
                    {
                        return (memory.Start + site, island.Address);
                    }
                }
            }

            return null;
        }
    }

    /// <summary>Frees the islands of a block nobody can be inside any more.</summary>
    public long Free(CodeBlock block)
    {
        lock (_lock)
        {
            long freed = 0;
            foreach (ref SiteRecord record in block.Records.AsSpan())
            {
                if (!_bySite.Remove(record.Offset, out List<Island>? islands))
                {
                    continue;
                }

                foreach (Island island in islands)
                {
                    _pieces.Give(island.Address, island.Length);
                    freed += island.Length;
                    Count--;
                    LiveMetrics.Island(-1);
                }
            }

            return freed;
        }
    }

    private bool TryWrite(CodeContent content, VirtualAddress address, VirtualAddress end)
    {
        Span<byte> bytes = memory.Span(address, content.MaxLength);
        if (!content.TryWrite(address, bytes))
        {
            return false;
        }

        int length = content.Body.Bytes.Length;
        if (!content.Body.EndsControlFlow)
        {
            bytes[length] = 0xe9; // jmp rel32, in reach: island and site are in one arena
            BinaryPrimitives.WriteInt32LittleEndian(bytes[(length + 1)..], checked((int)(end - (address + length + 5))));
        }

        return true;
    }

    private readonly record struct Island(CodeContent Content, VirtualAddress Address, int Length);
}
