using PvPatch.Linux.Dumps;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Memory;

public sealed class MemoryFileTests
{
    private const ulong Kernel = 0xffffffff81000000;
    private const ulong DirectMap = 0xffff888000000000;

    [Fact]
    public void Raw_memory_is_read_from_its_base_to_its_end()
    {
        using MemoryFile file = TestCore.Open([1, 2, 3, 4], Kernel);

        Assert.Equal(MemoryFileKind.Raw, file.Kind);
        Assert.Equal([2, 3], Read(file, Kernel + 1, 2));
        Assert.Null(Read(file, Kernel + 3, 2));
        Assert.Null(Read(file, Kernel - 1, 1));
        Assert.False(file.HasPhysicalAddresses);
    }

    [Fact]
    public void Raw_memory_may_end_with_the_address_space_but_not_go_on()
    {
        using MemoryFile file = TestCore.Open([1, 2, 3, 4], 0xfffffffffffffffe);

        Assert.Equal([1, 2], Read(file, 0xfffffffffffffffe, 2));
        Assert.Null(Read(file, 0xfffffffffffffffe, 3));
        Assert.Equal("PV6126", Assert.Single(file.Warnings).Code);
    }

    [Fact]
    public void A_core_with_paging_is_read_by_both_addresses()
    {
        using MemoryFile file = new TestCore().Load(DirectMap + 0x1000, 0x1000, [1, 2, 3, 4]).Load(Kernel, 0x2000, [5, 6])
            .Load(0x400000, 0x9000, [7]).Open();

        Assert.Equal(MemoryFileKind.ElfCore, file.Kind);
        Assert.Equal(64, file.Bitness);
        Assert.Equal([3, 4], Read(file, DirectMap + 0x1002, 2));
        Assert.Equal([5, 6], Read(file, Kernel, 2));
        Assert.Equal([5, 6], ReadPhysical(file, 0x2000, 2));
        Assert.Null(Read(file, 0x400000, 1)); // a process's
        Assert.Equal([7], ReadPhysical(file, 0x9000, 1));
        Assert.Empty(file.Warnings);
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(0x100000UL)]
    public void A_core_without_paging_has_physical_addresses_only(ulong virtualAddress)
    {
        using MemoryFile file = new TestCore().Load(virtualAddress, 0x100000, [1, 2]).Open();

        Assert.False(file.HasVirtualAddresses);
        Assert.Equal([1, 2], ReadPhysical(file, 0x100000, 2));
    }

    [Fact]
    public void Where_all_physical_addresses_are_0_or_minus_1_there_are_none()
    {
        using MemoryFile old = new TestCore().Load(DirectMap, 0, [1, 2]).Load(Kernel, 0, [3, 4]).Open();
        using MemoryFile some = new TestCore().Load(DirectMap, ulong.MaxValue, [1, 2]).Load(Kernel, 0x1000, [3, 4]).Open();

        Assert.False(old.HasPhysicalAddresses);
        Assert.Equal([3, 4], Read(old, Kernel, 2));
        Assert.Equal([3, 4], ReadPhysical(some, 0x1000, 2));
        Assert.Null(ReadPhysical(some, ulong.MaxValue, 1));
    }

    [Theory]
    [InlineData(false, 0xc1000000UL)]
    [InlineData(true, 0xc1000000UL)]
    [InlineData(true, 0xffffffffc1000000UL)]
    public void Cores_of_32_bit_machines_are_of_either_class(bool is64, ulong address)
    {
        using MemoryFile file = new TestCore(is64, 3).Load(address, 0x1000000, [1, 2]).Open();

        Assert.Equal(32, file.Bitness);
        Assert.Equal([1, 2], Read(file, 0xc1000000, 2));
        Assert.Equal([1, 2], ReadPhysical(file, 0x1000000, 2));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void The_number_of_headers_may_be_in_section_header_0(bool is64)
    {
        using MemoryFile file = new TestCore(is64, (ushort)(is64 ? 62 : 3)) { ExtendedCount = true }.Load(0, 0x1000, [1])
            .Load(0, 0x3000, [2]).Open();

        Assert.Equal([2], ReadPhysical(file, 0x3000, 1));
    }

    [Fact]
    public void Reads_run_over_segments_that_follow_each_other_and_stop_at_holes()
    {
        // In the file the second part lies in front of the first.
        using MemoryFile file = new TestCore().Load(Kernel + 2, 0x2002, [3, 4]).Load(Kernel, 0x5000, [1, 2]).Load(Kernel + 6, 0x2006, [7])
            .Open();

        Assert.Equal([1, 2, 3, 4], Read(file, Kernel, 4));
        Assert.Null(Read(file, Kernel, 5));
        Assert.Null(Read(file, Kernel + 5, 2));
        Assert.Equal([7], Read(file, Kernel + 6, 1));
    }

    [Fact]
    public void Memory_left_out_of_the_dump_is_a_hole_and_no_zeros()
    {
        TestCore core = new TestCore().Load(Kernel, 0x1000, [1, 2]);
        byte[] file = core.Build().With64(core.HeaderOf(0) + 40, 0x1000); // p_memsz
        using MemoryFile memory = TestCore.Open(file);

        Assert.Equal([1, 2], Read(memory, Kernel, 2));
        Assert.Null(Read(memory, Kernel + 2, 1));
    }

    [Fact]
    public void A_core_cut_short_is_read_as_far_as_it_goes()
    {
        byte[] whole = new TestCore().Load(Kernel, 0x1000, [1, 2, 3, 4]).Load(Kernel + 0x1000, 0x2000, [5]).Build();
        using MemoryFile file = TestCore.Open(whole[..^3]);

        Assert.Equal([1, 2], Read(file, Kernel, 2));
        Assert.Null(Read(file, Kernel, 3));
        Assert.Null(Read(file, Kernel + 0x1000, 1));
        PatchDiagnostic warning = Assert.Single(file.Warnings);
        Assert.Equal("PV6125", warning.Code);
        Assert.StartsWith("2 of 3", warning.Found, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(ulong.MaxValue, null)]
    [InlineData(0x7fffffffffffffffUL, null)]
    [InlineData(4UL, ulong.MaxValue)]
    [InlineData(ulong.MaxValue, ulong.MaxValue)]
    [InlineData(ulong.MaxValue, 0x8000000000000000UL)]
    public void Sizes_and_offsets_that_cannot_be_are_cut_to_the_file(ulong fileSize, ulong? offset)
    {
        using MemoryFile file = new TestCore().Load(Kernel, 0x1000, [1, 2], fileSize, offset).Load(DirectMap, 0x8000, [3]).Open();

        Assert.Contains(file.Warnings, w => w.Code == "PV6125");
        Assert.Equal([3], Read(file, DirectMap, 1));
        Assert.Null(Read(file, Kernel + 0x10000, 1));
    }

    [Fact]
    public void Of_segments_that_overlap_the_one_that_starts_first_counts()
    {
        using MemoryFile file = new TestCore().Load(Kernel + 1, 0x2000, [8, 8, 8]).Load(Kernel, 0x1000, [1, 2]).Load(Kernel, 0x3000, [9])
            .Open();

        Assert.Equal([1, 2, 8, 8], Read(file, Kernel, 4));
        Assert.Equal("PV6126", Assert.Single(file.Warnings).Code);
        Assert.Equal([8, 8, 8], ReadPhysical(file, 0x2000, 3));
    }

    [Fact]
    public void A_segment_that_runs_over_the_end_of_the_address_space_is_cut()
    {
        using MemoryFile file = new TestCore().Load(ulong.MaxValue - 1, 0x1000, [1, 2, 3, 4]).Open();

        Assert.Equal([1, 2], Read(file, ulong.MaxValue - 1, 2));
        Assert.Null(Read(file, ulong.MaxValue, 2));
        Assert.Null(Read(file, 0, 1));
        Assert.Equal("PV6126", Assert.Single(file.Warnings).Code);
    }

    [Fact]
    public void A_huge_file_with_memory_far_inside_is_read_where_asked()
    {
        using var folder = new TestFolder();
        const long far = 1L << 40;
        string path = folder.File("core", new TestCore().Load(Kernel, 0x1000, [], 4, (ulong)far).Build());
        using (FileStream stream = System.IO.File.OpenWrite(path))
        {
            stream.Position = far;
            stream.Write([1, 2, 3, 4]);
        }

        long before = GC.GetAllocatedBytesForCurrentThread();
        using MemoryFile file = MemoryFile.Open(path);

        Assert.Equal([1, 2, 3, 4], Read(file, Kernel, 4));
        Assert.True(GC.GetAllocatedBytesForCurrentThread() - before < 1 << 20);
    }

    [Fact]
    public void Files_that_cannot_be_opened_are_told_of()
    {
        using var folder = new TestFolder();
        foreach (string path in (string[])[folder.File("nothing"), folder.Path])
        {
            Assert.False(MemoryFile.TryOpen(path, null, out _, out PatchDiagnostic? error));
            Assert.Equal("PV6120", error.Code);
            Assert.Equal(path, error.Source);
        }
    }

    [Fact]
    public void A_source_is_closed_with_the_file_and_where_there_is_no_file()
    {
        var good = new BytesMemorySource([1]);
        var bad = new BytesMemorySource([]);
        Assert.True(MemoryFile.TryOpen(good, "raw", Kernel, out MemoryFile? file, out _));
        Assert.False(MemoryFile.TryOpen(bad, "raw", Kernel, out _, out PatchDiagnostic? error));

        file.Dispose();

        Assert.Equal("PV6124", error.Code);
        Assert.True(good.IsDisposed && bad.IsDisposed);
    }

    internal static byte[]? Read(MemoryFile file, ulong address, int length)
    {
        byte[] bytes = new byte[length];
        return file.TryReadVirtual(address, bytes) ? bytes : null;
    }

    private static byte[]? ReadPhysical(MemoryFile file, ulong address, int length)
    {
        byte[] bytes = new byte[length];
        return file.TryReadPhysical(address, bytes) ? bytes : null;
    }
}
