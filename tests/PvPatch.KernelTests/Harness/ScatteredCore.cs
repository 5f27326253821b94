using System.Buffers.Binary;

namespace PvPatch.KernelTests.Harness;

/// <summary>
/// Changes a core of a machine under Xen as if the hypervisor had given the kernel's pages from all over its memory: the first page of
/// a range changes places with the last one and so on, in memory and in the page tables.
/// </summary>
internal sealed class ScatteredCore
{
    private const int PageSize = 4096;
    private const ulong Present = 1;
    private const ulong Large = 1 << 7;
    private const ulong FrameMask = 0x000f_ffff_ffff_f000;

    private readonly FileStream _file;
    private readonly long _start;

    private ScatteredCore(FileStream file, long start)
    {
        _file = file;
        _start = start;
    }

    /// <summary>Reverses the order in which the pages of a range lie in memory.</summary>
    /// <param name="path">The core, whose first segment has all memory below 2 GiB.</param>
    /// <param name="root">The physical address of the table of the fourth level.</param>
    /// <param name="first">The virtual address of the first page.</param>
    /// <param name="end">The virtual address behind the last one.</param>
    /// <returns>The number of pages that changed places.</returns>
    public static int Reverse(string path, ulong root, ulong first, ulong end)
    {
        long start = CoreFile.OffsetOf(path, 0);
        using FileStream file = new(path, FileMode.Open, FileAccess.ReadWrite);
        var core = new ScatteredCore(file, start);
        int pages = (int)((end - first) / PageSize);
        for (int i = 0; i < pages / 2; i++)
        {
            core.Swap(core.EntryOf(root, first + ((ulong)i * PageSize)), core.EntryOf(root, first + ((ulong)(pages - 1 - i) * PageSize)));
        }

        return pages / 2 * 2;
    }

    /// <summary>Where the entry of the last level is: a Xen PV guest's tables hold machine addresses.</summary>
    private ulong EntryOf(ulong root, ulong address)
    {
        ulong table = root;
        for (int shift = 39; shift > 12; shift -= 9)
        {
            ulong entry = Read(table + (((address >> shift) & 511) * 8));
            Assert.Equal(Present, entry & (Present | Large));
            table = entry & FrameMask;
        }

        return table + (((address >> 12) & 511) * 8);
    }

    private void Swap(ulong left, ulong right)
    {
        ulong leftEntry = Read(left);
        ulong rightEntry = Read(right);
        Assert.Equal(Present, leftEntry & rightEntry & Present);
        byte[] leftPage = ReadBytes(leftEntry & FrameMask, PageSize);
        Write(leftEntry & FrameMask, ReadBytes(rightEntry & FrameMask, PageSize));
        Write(rightEntry & FrameMask, leftPage);
        Write(left, (leftEntry & ~FrameMask) | (rightEntry & FrameMask));
        Write(right, (rightEntry & ~FrameMask) | (leftEntry & FrameMask));
    }

    private ulong Read(ulong physical) => BinaryPrimitives.ReadUInt64LittleEndian(ReadBytes(physical, sizeof(ulong)));

    private byte[] ReadBytes(ulong physical, int length)
    {
        byte[] bytes = new byte[length];
        _file.Position = _start + (long)physical;
        _file.ReadExactly(bytes);
        return bytes;
    }

    private void Write(ulong physical, ulong value)
    {
        byte[] bytes = new byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        Write(physical, bytes);
    }

    private void Write(ulong physical, byte[] bytes)
    {
        _file.Position = _start + (long)physical;
        _file.Write(bytes);
    }
}
