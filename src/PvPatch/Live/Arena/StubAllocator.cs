using System.Numerics;
using System.Runtime.CompilerServices;

namespace PvPatch.Live;

/// <summary>
/// Pieces of code smaller than a block, packed into pages of their own: what is written here shares no line with code that is running.
/// Taking and giving back cost the same however many pages there are, and a page whose last piece is given back goes back to the arena. A
/// piece may have an owner, which is found by address. Safe for several threads; looking an owner up takes no lock.
/// </summary>
internal sealed class StubAllocator(ArenaMemory memory)
{
    /// <summary>A piece begins at a multiple of this: a branch target in a fetch window of its own.</summary>
    public const int Alignment = 16;

    private const int PageSize = 4096;
    private const int UnitsInPage = PageSize / Alignment;

    private readonly Lock _lock = new();
    private readonly Page?[] _pages = new Page?[(memory.Size + PageSize - 1) / PageSize]; // by number in the arena
    private readonly Page?[] _byLongestRun = new Page?[UnitsInPage]; // the first page of each list
    private UnitSet _runs; // which of these lists are not empty

    /// <summary>Pages taken from the arena.</summary>
    public int PageCount { get; private set; }

    /// <summary>Takes room for a piece of at most 1 KiB.</summary>
    /// <param name="length">Bytes.</param>
    /// <param name="address">Its run address.</param>
    /// <param name="error">No room.</param>
    /// <param name="owner">The site it belongs to, from the arena's start; <see langword="null"/> where it belongs to none.</param>
    public bool TryTake(int length, out VirtualAddress address, out PatchDiagnostic? error, uint? owner = null)
    {
        lock (_lock)
        {
            int units = UnitsFor(length);
            int run = _runs.NextTaken(units);
            Page page;
            error = null;
            if (run < UnitsInPage)
            {
                page = _byLongestRun[run]!;
                Unlist(page);
            }
            else if (memory.TryTakeCode(PageSize, PageSize, out address, out bool reused, out error))
            {
                page = new Page(address, reused);
                Volatile.Write(ref _pages[NumberOf(address)], page);
                PageCount++;
            }
            else
            {
                return false;
            }

            if (page.WasRun)
            {
                memory.NoteReused();
            }

            address = page.Address + page.Take(units, owner) * Alignment;
            List(page);
            return true;
        }
    }

    /// <summary>Gives a piece back. Nobody may be inside it.</summary>
    public void Give(VirtualAddress address, int length)
    {
        lock (_lock)
        {
            memory.Span(address, length).Fill(0xcc);
            ref Page? place = ref _pages[NumberOf(address)];
            Page page = place!;
            Unlist(page);
            page.Give((int)(address - page.Address) / Alignment, UnitsFor(length));
            if (page.IsEmpty)
            {
                Volatile.Write(ref place, null);
                PageCount--;
                memory.GiveCode(page.Address, PageSize, wereRun: true);
            }
            else
            {
                List(page);
            }
        }
    }

    /// <summary>The owner of the piece at an address. Takes no lock and allocates nothing.</summary>
    public bool TryFindOwner(VirtualAddress address, out uint owner)
    {
        Page? page = memory.Contains(address, 1) ? Volatile.Read(ref _pages[NumberOf(address)]) : null;
        owner = page?.OwnerOf((int)(address - page.Address) / Alignment) ?? 0;
        return owner-- != 0;
    }

    private static int UnitsFor(int length) => (length + Alignment - 1) / Alignment;

    private long NumberOf(VirtualAddress address) => (address - memory.Start) / PageSize;

    private void List(Page page)
    {
        int run = page.LongestRun;
        if (run == 0)
        {
            return; // full
        }

        page.Next = _byLongestRun[run];
        page.Next?.Previous = page;
        _byLongestRun[run] = page;
        _runs.Take(run, 1);
    }

    private void Unlist(Page page)
    {
        int run = page.LongestRun;
        if (run == 0)
        {
            return;
        }

        page.Next?.Previous = page.Previous;
        if (page.Previous is not null)
        {
            page.Previous.Next = page.Next;
        }
        else if ((_byLongestRun[run] = page.Next) is null)
        {
            _runs.Free(run, 1);
        }

        page.Next = page.Previous = null;
    }

    /// <summary>A page and which of its units are taken.</summary>
    private sealed class Page
    {
        private UnitSet _taken;
        private uint[]? _owners; // of each unit, and one more; 0 for none

        public Page(VirtualAddress address, bool wasRun)
        {
            Address = address;
            WasRun = wasRun;

            // The arena keeps some readable bytes behind every piece: here the last unit.
            _taken.Take(UnitsInPage - 1, ArenaMemory.Slack / Alignment);
            LongestRun = UnitsInPage - 1;
        }

        public VirtualAddress Address { get; }

        /// <summary>Whether other code stood in the page before, or in a piece given back.</summary>
        public bool WasRun { get; private set; }

        public int LongestRun { get; private set; }

        public bool IsEmpty => LongestRun == UnitsInPage - 1;

        public Page? Next { get; set; }

        public Page? Previous { get; set; }

        /// <summary>Takes units where they first fit; they do, for the longest run is long enough.</summary>
        public int Take(int units, uint? owner)
        {
            int at = _taken.NextFree(0);
            for (int end = _taken.NextTaken(at); end - at < units; end = _taken.NextTaken(at))
            {
                at = _taken.NextFree(end);
            }

            _taken.Take(at, units);
            SetOwner(at, units, owner + 1 ?? 0);
            FindLongestRun();
            return at;
        }

        public void Give(int at, int units)
        {
            _taken.Free(at, units);
            SetOwner(at, units, 0);
            WasRun = true;
            FindLongestRun();
        }

        public uint OwnerOf(int unit) => Volatile.Read(ref _owners) is uint[] owners ? Volatile.Read(ref owners[unit]) : 0;

        private void SetOwner(int at, int units, uint owner)
        {
            if (_owners is null)
            {
                if (owner == 0)
                {
                    return;
                }

                Volatile.Write(ref _owners, new uint[UnitsInPage]);
            }

            for (int i = at; i < at + units; i++)
            {
                Volatile.Write(ref _owners[i], owner);
            }
        }

        private void FindLongestRun()
        {
            LongestRun = 0;
            for (int at = _taken.NextFree(0); at < UnitsInPage;)
            {
                int end = _taken.NextTaken(at);
                LongestRun = Math.Max(LongestRun, end - at);
                at = _taken.NextFree(end);
            }
        }
    }

    /// <summary>256 bits.</summary>
    [InlineArray(UnitsInPage / 64)]
    private struct UnitSet
    {
        private ulong _first;

        public void Take(int start, int count)
        {
            for (int i = start; i < start + count; i++)
            {
                this[i / 64] |= 1UL << i % 64;
            }
        }

        public void Free(int start, int count)
        {
            for (int i = start; i < start + count; i++)
            {
                this[i / 64] &= ~(1UL << i % 64);
            }
        }

        /// <summary>The first bit that is set, from one on; 256 where there is none.</summary>
        public readonly int NextTaken(int from) => Next(from, 0);

        /// <summary>The first bit that is not set, from one on; 256 where there is none.</summary>
        public readonly int NextFree(int from) => Next(from, ulong.MaxValue);

        private readonly int Next(int from, ulong flip)
        {
            for (int i = from / 64; i < UnitsInPage / 64; i++)
            {
                ulong bits = this[i] ^ flip;
                bits &= i == from / 64 ? ulong.MaxValue << from % 64 : ulong.MaxValue;
                if (bits != 0)
                {
                    return i * 64 + BitOperations.TrailingZeroCount(bits);
                }
            }

            return UnitsInPage;
        }
    }
}
