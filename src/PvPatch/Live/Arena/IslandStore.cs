using System.Buffers.Binary;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>
/// Islands: for a site, a body of several instructions out of line, and behind it a jump to the site's end. Immutable once written, so a
/// thread may be in one for ever; kept as long as the site's block, so switching to and fro among the same backends makes each island once.
/// </summary>
/// <remarks>
/// A site of six bytes before and after its body of two instructions is put out of line:
/// <code>
/// site      ff 15 dd dd dd dd     call [rip+slot]
/// then      2e e9 dd dd dd dd     cs jmp island
///
/// island    8d 40 01              lea eax,[rax+1]         at a multiple of 16, in a page of such pieces
///           8d 40 02              lea eax,[rax+2]
///           e9 dd dd dd dd        jmp to the site's end
/// </code>
/// </remarks>
internal sealed class IslandStore(ArenaMemory memory, StubAllocator stubs)
{
    private const int LongestEnd = 5; // e9 rel32

    private readonly Lock _lock = new();
    private readonly List<AssembledBody> _bodies = [];
    private readonly Dictionary<string, int> _numbers = [];
    private readonly Dictionary<ulong, VirtualAddress> _addresses = [];
    private readonly Dictionary<uint, List<int>> _bySite = []; // the numbers of the bodies of its islands

    /// <summary>How many there are.</summary>
    public int Count => _addresses.Count;

    /// <summary>
    /// The number of a body. Bodies of equal content have one, so that a host which makes the same backend again and again does not fill
    /// its arena with the same code.
    /// </summary>
    public int NumberOf(AssembledBody body)
    {
        lock (_lock)
        {
            string key = body.ContentKey();
            if (!_numbers.TryGetValue(key, out int number))
            {
                number = _bodies.Count;
                _bodies.Add(body);
                _numbers.Add(key, number);
            }

            return number;
        }
    }

    /// <summary>A body by its number. To be called while the store is held.</summary>
    public AssembledBody this[int body] => _bodies[body];

    /// <summary>Keeps others out while a batch asks for many islands, until <see cref="Release"/>.</summary>
    public void Hold() => _lock.Enter();

    public void Release() => _lock.Exit();

    /// <summary>The site's island with a body, where there is one. To be called while the store is held.</summary>
    public bool TryFind(uint site, int body, out VirtualAddress address) => _addresses.TryGetValue(Key(site, body), out address);

    /// <summary>Writes an island. To be called while the store is held.</summary>
    /// <param name="site">The site, from the arena's start.</param>
    /// <param name="end">Where the island goes on: the site's end.</param>
    /// <param name="body">What it does: the number of a body.</param>
    /// <param name="argument">The site's argument, which is loaded before a body that may read it.</param>
    /// <param name="address">Its run address.</param>
    /// <param name="error">No room; nothing where something it refers to is too far away.</param>
    public bool TryAdd(
        uint site, VirtualAddress end, int body, in ArgumentCode argument, out VirtualAddress address, out PatchDiagnostic? error)
    {
        int length = MaxLength(body, argument);
        if (!stubs.TryTake(length, out address, out error, site))
        {
            return false;
        }

        if (!TryWrite(body, argument, memory.Start + site, address, end))
        {
            stubs.Give(address, length);
            return false;
        }

        if (!_bySite.TryGetValue(site, out List<int>? bodies))
        {
            bodies = [];
            _bySite.Add(site, bodies);
        }

        bodies.Add(body);
        _addresses.Add(Key(site, body), address);
        return true;
    }

    /// <summary>The site of the island at an address. Takes no lock.</summary>
    public bool TryFindSite(VirtualAddress address, out VirtualAddress site)
    {
        bool found = stubs.TryFindOwner(address, out uint offset);
        site = found ? memory.Start + offset : default;
        return found;
    }

    /// <summary>The island an address lies in, for reports.</summary>
    public (VirtualAddress Site, VirtualAddress Address)? Find(VirtualAddress address)
    {
        lock (_lock)
        {
            // What has an owner is an island or the stub of an argument, and the last that begins before the address.
            VirtualAddress? last = null;
            if (stubs.TryFindOwner(address, out uint site) && _bySite.TryGetValue(site, out List<int>? bodies))
            {
                foreach (int body in bodies)
                {
                    VirtualAddress start = _addresses[Key(site, body)];
                    last = start <= address && !(start < last) ? start : last;
                }
            }

            return last is VirtualAddress found ? (memory.Start + site, found) : null;
        }
    }

    /// <summary>Frees the islands of a block nobody can be inside any more.</summary>
    public long Free(CodeBlock block)
    {
        lock (_lock)
        {
            long freed = 0;
            for (int i = 0; i < block.SiteCount; i++)
            {
                ref SiteRecord record = ref block.Records[i];
                if (!_bySite.Remove(record.Offset, out List<int>? bodies))
                {
                    continue;
                }

                foreach (int body in bodies)
                {
                    _addresses.Remove(Key(record.Offset, body), out VirtualAddress address);
                    int length = MaxLength(body, block.ArgumentOf(i));
                    stubs.Give(address, length);
                    freed += length;
                }
            }

            return freed;
        }
    }

    private static ulong Key(uint site, int body) => (ulong)site << 32 | (uint)body;

    /// <summary>The longest that an island with a body gets, with the argument before it and the way back behind it.</summary>
    private int MaxLength(int body, in ArgumentCode argument) => argument.Length + _bodies[body].Bytes.Length + LongestEnd;

    private bool TryWrite(int number, in ArgumentCode argument, VirtualAddress site, VirtualAddress address, VirtualAddress end)
    {
        AssembledBody body = _bodies[number];
        Span<byte> bytes = memory.Span(address, MaxLength(number, argument));
        int before = 0;
        if (!(body.Reads & argument.Registers).IsEmpty)
        {
            argument.Write(bytes, address, site);
            before = argument.Length;
        }

        if (!body.TryWrite(address + before, bytes[before..]))
        {
            return false;
        }

        int length = before + body.Bytes.Length;
        if (!body.EndsControlFlow)
        {
            bytes[length] = 0xe9; // jmp rel32, in reach: island and site are in one arena
            BinaryPrimitives.WriteInt32LittleEndian(bytes[(length + 1)..], checked((int)(end - (address + length + 5))));
        }

        return true;
    }
}
