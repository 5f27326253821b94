using System.Numerics;
using System.Runtime.Intrinsics;

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
    private Vector256<ulong> _runs; // which of these lists are not empty: a bit each

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
            int run = Next(_runs, units, isSet: true);
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
        Mark(ref _runs, run, 1, set: true);
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
            Mark(ref _runs, run, 1, set: false);
        }

        page.Next = page.Previous = null;
    }

    private static void Mark(ref Vector256<ulong> bits, int start, int count, bool set)
    {
        for (int i = start; i < start + count; i++)
        {
            ulong bit = 1UL << i % 64;
            bits = bits.WithElement(i / 64, set ? bits[i / 64] | bit : bits[i / 64] & ~bit);
        }
    }

    /// <summary>The first bit from one on that is set, or that is not; 256 where there is none.</summary>
    private static int Next(in Vector256<ulong> bits, int from, bool isSet)
    {
        for (int i = from; i < UnitsInPage; i = (i | 63) + 1)
        {
            ulong word = (isSet ? bits[i / 64] : ~bits[i / 64]) >> i % 64;
            if (word != 0)
            {
                return i + BitOperations.TrailingZeroCount(word);
            }
        }

        return UnitsInPage;
    }

    /// <summary>A page and which of its units are taken.</summary>
    private sealed class Page
    {
        private Vector256<ulong> _taken; // a bit for each unit
        private uint[]? _owners; // of each unit, and one more; 0 for none

        public Page(VirtualAddress address, bool wasRun)
        {
            Address = address;
            WasRun = wasRun;

            // The arena keeps some readable bytes behind every piece: here the last unit.
            Mark(ref _taken, UnitsInPage - 1, ArenaMemory.Slack / Alignment, set: true);
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
            int at = Next(_taken, 0, isSet: false);
            for (int end = Next(_taken, at, isSet: true); end - at < units; end = Next(_taken, at, isSet: true))
            {
                at = Next(_taken, end, isSet: false);
            }

            Mark(ref _taken, at, units, set: true);
            SetOwner(at, units, owner + 1 ?? 0);
            FindLongestRun();
            return at;
        }

        public void Give(int at, int units)
        {
            Mark(ref _taken, at, units, set: false);
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
            for (int at = Next(_taken, 0, isSet: false); at < UnitsInPage;)
            {
                int end = Next(_taken, at, isSet: true);
                LongestRun = Math.Max(LongestRun, end - at);
                at = Next(_taken, end, isSet: false);
            }
        }
    }
}
