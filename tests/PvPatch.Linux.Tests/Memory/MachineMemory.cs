using System.Buffers.Binary;
using PvPatch.Linux.Dumps;

namespace PvPatch.Linux.Tests.Memory;

/// <summary>A kernel's memory in a machine, to be changed by link address and dumped in several forms.</summary>
internal sealed class MachineMemory(long slide, IEnumerable<(string Name, ulong Address, byte[] Bytes)> sections)
{
    private readonly List<(string Name, ulong Address, byte[] Bytes)> _sections = [.. sections];

    public long Slide => slide;

    public byte[] this[string section] => _sections.Single(s => s.Name == section).Bytes;

    public Span<byte> At(ulong address)
    {
        (_, ulong start, byte[] bytes) = _sections.Single(s => address >= s.Address && address - s.Address < (ulong)s.Bytes.Length);
        return bytes.AsSpan((int)(address - start));
    }

    public MachineMemory Put(ulong address, params byte[] bytes)
    {
        bytes.CopyTo(At(address));
        return this;
    }

    /// <summary>Fills a section, as the kernel does with what it frees.</summary>
    public MachineMemory Fill(string section, byte value)
    {
        this[section].AsSpan().Fill(value);
        return this;
    }

    public void Relocate(ulong address, int width)
    {
        Span<byte> place = At(address);
        if (width == 8)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(place, unchecked(BinaryPrimitives.ReadUInt64LittleEndian(place) + (ulong)slide));
        }
        else
        {
            BinaryPrimitives.WriteUInt32LittleEndian(place, unchecked(BinaryPrimitives.ReadUInt32LittleEndian(place) + (uint)slide));
        }
    }

    /// <summary>A core with paging: virtual addresses, slide included, and physical ones.</summary>
    public TestCore VirtualCore(bool is64 = true, ushort machine = 62, params string[] without)
    {
        var core = new TestCore(is64, machine);
        foreach ((_, ulong address, byte[] bytes) in _sections.Where(s => !without.Contains(s.Name)))
        {
            ulong there = unchecked(address + (ulong)slide);
            core.Load(is64 ? there : (uint)there, (there & 0x3fffffff) + 0x100000, bytes);
        }

        return core;
    }

    /// <summary>A core without paging: one run of physical memory, the kernel at an address of its own choice in it.</summary>
    public TestCore PhysicalCore(ulong physicalText)
    {
        ulong text = _sections[0].Address;
        return new TestCore().Load(0, 0, new byte[0x1000]).Load(0, 0x100000, Flat(physicalText - 0x100000, text));
    }

    /// <summary>The kernel's memory from its first byte on in one run, with bytes in front.</summary>
    public byte[] Flat(ulong inFront = 0, ulong? from = null)
    {
        ulong start = from ?? _sections[0].Address;
        byte[] all = new byte[inFront + _sections[^1].Address + (ulong)_sections[^1].Bytes.Length - start];
        foreach ((_, ulong address, byte[] bytes) in _sections)
        {
            bytes.CopyTo(all, (int)(inFront + address - start));
        }

        return all;
    }

    public MemoryFile Open() => VirtualCore().Open();
}
