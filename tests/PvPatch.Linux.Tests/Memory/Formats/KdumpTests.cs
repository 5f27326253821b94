using PvPatch.Linux.Dumps;
using PvPatch.Linux.Tests.Support;
using PvPatch.Tests.Shared;

namespace PvPatch.Linux.Tests.Memory;

public sealed class KdumpTests
{
    private const ulong Page = TestKdump.Block;

    // Snappy as its description has it: the length as a varint, a literal of 2 bytes, then copies of 64 bytes from 2 bytes back.
    private static readonly byte[] s_snappyPage = [0x80, 0x20, 0x04, 0xab, 0xcd,
        .. Enumerable.Repeat((byte[])[(63 << 2) | 2, 2, 0], 63).SelectMany(static c => c), (61 << 2) | 2, 2, 0];

    [Fact]
    public void Pages_are_unpacked_whatever_their_compression()
    {
        Require.Tool("zstd");
        byte[] zlib = Filled(1);
        byte[] zstd = Filled(2);
        byte[] raw = Filled(3);
        using MemoryFile file = TestCore.Open(new TestKdump().Zlib(16, zlib).Packed(17, TestKdump.Zstd(zstd), 0x20).Raw(18, raw)
            .Packed(20, s_snappyPage, 4).Build());

        Assert.Equal(MemoryFileKind.Kdump, file.Kind);
        Assert.Equal(64, file.Bitness);
        Assert.False(file.HasVirtualAddresses);
        Assert.Equal([.. zlib, .. zstd, .. raw], Read(file, 16 * Page, 3 * TestKdump.Block)!);
        Assert.Equal(zstd[100..200], Read(file, 17 * Page + 100, 100));
        Assert.Equal([.. zlib[4090..], .. zstd[..5]], Read(file, 17 * Page - 6, 11)!);
        byte[] pattern = [.. Enumerable.Range(0, TestKdump.Block).Select(static i => (byte)(i % 2 == 0 ? 0xab : 0xcd))];
        Assert.Equal(pattern, Read(file, 20 * Page, TestKdump.Block));
        Assert.Empty(file.Warnings);
    }

    [Fact]
    public void Pages_that_are_not_in_the_dump_are_holes()
    {
        using MemoryFile file = TestCore.Open(new TestKdump { Frames = 100 }.Zlib(16, Filled(1)).Zlib(18, Filled(2)).Build());

        Assert.Null(Read(file, 17 * Page, 1));
        Assert.Null(Read(file, 15 * Page, 2 * TestKdump.Block));
        Assert.Null(Read(file, 17 * Page - 1, 2));
        Assert.Null(Read(file, 99 * Page, 1));
        Assert.Null(Read(file, ulong.MaxValue - 7, 8));
        Assert.Equal(Filled(2), Read(file, 18 * Page, TestKdump.Block));
    }

    [Fact]
    public void Every_page_of_a_scattered_dump_is_found_by_its_rank()
    {
        // More frames than a block of bitmap has bits, in runs of all lengths.
        var random = new Random(TestSeed.Value);
        var dump = new TestKdump { Frames = 40000 };
        var frames = new SortedSet<ulong>();
        for (ulong frame = 0; frame < 40000; frame += (ulong)random.Next(1, 300))
        {
            for (int run = random.Next(1, 130); run > 0 && frame < 40000; run--, frame++)
            {
                frames.Add(frame);
                dump.Zlib(frame, Numbered(frame));
            }
        }

        using MemoryFile file = TestCore.Open(dump.Build());
        for (ulong frame = 0; frame < 40000; frame++)
        {
            byte[]? found = Read(file, frame * Page + 8, 8);
            Assert.Equal(frames.Contains(frame) ? Numbered(frame)[8..16] : null, found);
        }

        Assert.Equal(frames.Count * (long)TestKdump.Block, file.PhysicalSpace.Segments.Sum(static s => s.Length));
        Assert.Empty(file.Warnings);
    }

    [Fact]
    public void A_dump_of_a_32_bit_machine_has_its_own_header()
    {
        byte[] info = [.. "OSRELEASE=6.1.0-18-686\nKERNELOFFSET=5000000\n"u8];
        using MemoryFile file = TestCore.Open(new TestKdump(is64: false) { VmCoreInfo = info, Frames = 4096 }.Zlib(16, Filled(1)).Build());

        Assert.Equal(32, file.Bitness);
        Assert.Equal(Filled(1), Read(file, 16 * Page, TestKdump.Block));
        Assert.Equal(0x5000000, file.Notes!.KernelOffset);
    }

    [Fact]
    public void Notes_are_read_from_their_own_place_or_among_those_of_the_core()
    {
        byte[] info = [.. "OSRELEASE=6.1.0\nKERNELOFFSET=1e000000\nNUMBER(phys_base)=-5\n"u8];
        byte[] note = [11, 0, 0, 0, (byte)info.Length, 0, 0, 0, 0, 0, 0, 0, .. "VMCOREINFO\0\0"u8, .. info, 0, 0, 0];
        foreach (TestKdump dump in (TestKdump[])[new() { VmCoreInfo = info }, new() { Notes = note }, new() { Notes = note, Version = 4 }])
        {
            using MemoryFile file = TestCore.Open(dump.Zlib(1, Filled(1)).Build());
            Assert.Equal(0x1e000000, file.Notes!.KernelOffset);
            Assert.Equal(-5, file.Notes.PhysicalBase);
        }

        // Before version 3 there was no such field.
        using MemoryFile old = TestCore.Open(new TestKdump { VmCoreInfo = info, Version = 2 }.Zlib(1, Filled(1)).Build());
        Assert.Null(old.Notes);
    }

    [Theory]
    [InlineData("KDUMP   ", 1, 1)]
    [InlineData("DISKDUMP", 1, 1)]
    [InlineData("DISKDUMP", 3, 0)]
    public void Old_dumps_may_have_one_bitmap_and_no_sub_header(string signature, int version, uint subBlocks)
    {
        using MemoryFile file = TestCore.Open(
            new TestKdump
            {
                Signature = signature,
                Version = version,
                SubBlocks = subBlocks,
                HasOneBitmap = true,
                Split = version > 1 ? 0 : 7u,
            }.Zlib(3, Filled(3)).Build());

        Assert.Equal(Filled(3), Read(file, 3 * Page, TestKdump.Block));
    }

    [Fact]
    public void A_dump_cut_short_is_read_as_far_as_it_goes()
    {
        TestKdump dump = new TestKdump().Raw(1, Filled(1)).Raw(2, Filled(2)).Raw(3, Filled(3));
        byte[] whole = dump.Build();

        using MemoryFile lacksBytes = TestCore.Open(whole[..^1]);
        Assert.Equal("PV6125", Assert.Single(lacksBytes.Warnings).Code);
        Assert.Equal(Filled(2), Read(lacksBytes, 2 * Page, TestKdump.Block));
        Assert.Null(Read(lacksBytes, 3 * Page, TestKdump.Block));

        // Descriptors of two pages: the third is no memory at all.
        Assert.True(MemoryFile.TryOpen(
            new BytesMemorySource(whole[..(dump.DescriptorOffset + 48)]), "cut", null, out MemoryFile? lacksDescriptors, out _));
        using (lacksDescriptors)
        {
            Assert.Equal("PV6125", Assert.Single(lacksDescriptors.Warnings).Code);
            Assert.Equal(2 * Page, (ulong)lacksDescriptors.PhysicalSpace.Segments.Sum(static s => s.Length));
        }

        using MemoryFile incomplete = TestCore.Open(new TestKdump { Status = 8 }.Raw(1, Filled(1)).Build());
        Assert.Equal("PV6125", Assert.Single(incomplete.Warnings).Code);
    }

    public static TheoryData<string, byte[], uint> Damaged => new()
    {
        { "nothing", [], 1 },
        { "zlib cut off", TestKdump.Deflated(Filled(1))[..^9], 1 },
        { "zlib of more", TestKdump.Deflated([.. Filled(1), 0]), 1 },
        { "zlib of far more", TestKdump.Deflated(new byte[1 << 20]), 1 },
        { "zlib of less", TestKdump.Deflated(Filled(1)[..^1]), 1 },
        { "no zlib", Filled(1)[..100], 1 },
        { "raw, short", Filled(1)[..^1], 0 },
        { "raw, long", [.. Filled(1), 0], 0 },
        { "lzo", Filled(1)[..100], 2 },
        { "no snappy", Filled(1)[..100], 4 },
        { "snappy of more", [0x81, 0x20, .. s_snappyPage[2..]], 4 },
        { "snappy, cut off", s_snappyPage[..^3], 4 },
        { "snappy from before the start", [0x80, 0x20, 0x04, 0xab, 0xcd, (63 << 2) | 2, 9, 0, .. s_snappyPage[8..]], 4 },
        { "no zstd", Filled(1)[..100], 0x20 },
        { "two at once", TestKdump.Deflated(Filled(1)), 3 },
        { "unknown", TestKdump.Deflated(Filled(1)), 0x40 },
    };

    [Theory]
    [MemberData(nameof(Damaged))]
    public void Pages_that_cannot_be_unpacked_count_as_missing_and_are_told_of(string what, byte[] packed, uint flags)
    {
        using MemoryFile file = TestCore.Open(new TestKdump().Zlib(1, Filled(1)).Packed(2, packed, flags).Zlib(3, Filled(3)).Build());
        Assert.Empty(file.Warnings);

        Assert.Null(Read(file, 2 * Page, 16));
        Assert.Null(Read(file, 2 * Page, TestKdump.Block));
        Assert.Equal(Filled(3), Read(file, 3 * Page, TestKdump.Block));
        PatchDiagnostic warning = Assert.Single(file.Warnings);
        Assert.Equal("PV6154", warning.Code);
        Assert.Equal(DiagnosticSeverity.Warning, warning.Severity);
        Assert.StartsWith("1 pages, the first one ", warning.Found, StringComparison.Ordinal);
        Assert.True(what.Length > 0 && warning.FileOffset == new TestKdump().Zlib(3, Filled(1)).DescriptorOffset + 24);
    }

    [Fact]
    public void A_large_dump_is_opened_at_the_cost_of_its_bitmap()
    {
        // 16 GiB, all of it there: 4 Mi descriptors, which are a hole in the file but for the last one.
        using var folder = new TestFolder();
        const long frames = 4 << 20;
        byte[] head = new TestKdump { Frames = frames }.Zlib(0, new byte[TestKdump.Block]).Build();
        string path = folder.File("dump", head);
        const int bitmap = (2 + (int)(frames / 8 / TestKdump.Block)) * TestKdump.Block;
        const long descriptors = (2 + 2 * (frames / 8 / TestKdump.Block)) * TestKdump.Block;
        byte[] last = Filled(9);
        using (FileStream stream = File.OpenWrite(path))
        {
            stream.Position = bitmap;
            stream.Write(Enumerable.Repeat((byte)0xff, (int)(frames / 8)).ToArray());
            long end = descriptors + frames * 24;
            stream.Position = end;
            stream.Write(last);
            stream.Position = end - 24;
            stream.Write(new byte[24].With64(0, (ulong)end).With32(8, TestKdump.Block));
        }

        long before = GC.GetAllocatedBytesForCurrentThread();
        using MemoryFile file = MemoryFile.Open(path);

        Assert.Equal(last, Read(file, (frames - 1) * Page, TestKdump.Block));
        Assert.True(GC.GetAllocatedBytesForCurrentThread() - before < 1 << 20);
        Assert.Single(file.PhysicalSpace.Segments);
        Assert.Empty(file.Warnings);
    }

    private static byte[] Filled(int seed)
    {
        // Half of it can be compressed.
        byte[] page = new byte[TestKdump.Block];
        new Random(seed).NextBytes(page.AsSpan(0, TestKdump.Block / 2));
        return page;
    }

    private static byte[] Numbered(ulong frame) => new byte[TestKdump.Block].With64(8, frame + 1);

    private static byte[]? Read(MemoryFile file, ulong address, int length)
    {
        byte[] bytes = new byte[length];
        return file.TryReadPhysical(address, bytes) ? bytes : null;
    }
}
