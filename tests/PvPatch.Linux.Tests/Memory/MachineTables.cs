using System.Buffers.Binary;

namespace PvPatch.Linux.Tests.Memory;

/// <summary>Physical memory of a small x86-64 machine with page tables for the last GiB but one, where kernel images are.</summary>
internal sealed class MachineTables
{
    public const int PageSize = 4096;
    public const int LargePageSize = 2 << 20;
    private const ulong Flags = 0x63; // present, writable, accessed, dirty
    private const ulong Large = 0x80;

    private readonly byte[] _memory;
    private readonly int _second;
    private int _free;

    /// <param name="size">The size of the memory.</param>
    /// <param name="tables">Where tables begin: the fourth level, the third, the second, then the last ones as they are needed.</param>
    public MachineTables(int size, int tables)
    {
        _memory = new byte[size];
        _second = tables + (2 * PageSize);
        _free = _second + PageSize;
        Put(tables + (511 * 8), (ulong)(tables + PageSize) | Flags);
        Put(tables + PageSize + (510 * 8), (ulong)_second | Flags);
    }

    public Span<byte> Memory => _memory;

    /// <summary>Maps a page of 4 KiB and fills it.</summary>
    public void Map(ulong address, int physical, ReadOnlySpan<byte> bytes)
    {
        int entry = _second + (int)(((address >> 21) & 511) * 8);
        if (Get(entry) == 0)
        {
            Put(entry, (ulong)_free | Flags);
            _free += PageSize;
        }

        Put((int)(Get(entry) & ~0xfffUL) + (int)(((address >> 12) & 511) * 8), (ulong)physical | Flags);
        bytes.CopyTo(_memory.AsSpan(physical));
    }

    /// <summary>Maps a page of 2 MiB and fills it.</summary>
    public void MapLarge(ulong address, int physical, ReadOnlySpan<byte> bytes)
    {
        Put(_second + (int)(((address >> 21) & 511) * 8), (ulong)physical | Flags | Large);
        bytes.CopyTo(_memory.AsSpan(physical));
    }

    /// <summary>Writes an entry of the second level.</summary>
    public void PutSecond(int index, ulong entry) => Put(_second + (index * 8), entry);

    public TestCore Core() => new TestCore().Load(0, 0, _memory);

    private ulong Get(int at) => BinaryPrimitives.ReadUInt64LittleEndian(_memory.AsSpan(at));

    private void Put(int at, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(_memory.AsSpan(at), value);
}
