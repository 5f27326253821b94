using PvPatch.Linux.Dumps;
using PvPatch.Tests.Shared;

namespace PvPatch.Linux.Tests.Memory;

public sealed class FlattenedTests
{
    private const ulong Kernel = 0xffffffff81000000;

    [Fact]
    public void A_flattened_core_or_compressed_dump_is_read_as_the_dump_itself()
    {
        byte[] core = new TestCore().VmCoreInfo("KERNELOFFSET=1e000000").Load(Kernel, 0x1000, [1, 2, 3]).Build();
        byte[] page = [1, 2, .. new byte[4094]];
        byte[] kdump = new TestKdump { VmCoreInfo = [.. "KERNELOFFSET=1e000000\n"u8] }.Zlib(1, page).Build();
        foreach ((byte[] dump, MemoryFileKind kind) in
            ((byte[], MemoryFileKind)[])[(core, MemoryFileKind.ElfCore), (kdump, MemoryFileKind.Kdump)])
        {
            foreach (int size in (int[])[1, 7, 16384])
            {
                using MemoryFile file = TestCore.Open(TestFlattened.Of(dump, size));

                Assert.Equal(kind, file.Kind);
                Assert.True(file.IsFlattened);
                byte[] bytes = new byte[2];
                Assert.True(file.TryReadPhysical(0x1000, bytes));
                Assert.Equal([1, 2], bytes);
                Assert.Equal(0x1e000000, file.Notes!.KernelOffset);
                Assert.Empty(file.Warnings);
            }
        }
    }

    [Fact]
    public void Records_in_any_order_give_what_writing_them_one_after_the_other_gives()
    {
        var random = new Random(TestSeed.Value);
        for (int round = 0; round < 200; round++)
        {
            byte[] expected = new byte[2000];
            var file = new TestFlattened();
            int length = 0;
            for (int records = random.Next(1, 40); records > 0; records--)
            {
                byte[] bytes = new byte[random.Next(0, 120)];
                random.NextBytes(bytes);
                int at = random.Next(expected.Length - bytes.Length);
                bytes.CopyTo(expected, at);
                length = bytes.Length == 0 ? length : Math.Max(length, at + bytes.Length);
                file.Record(at, bytes);
            }

            if (length > 0)
            {
                AssertHolds(expected.AsSpan(0, length), file.End(), random);
            }
        }
    }

    [Fact]
    public void A_dump_without_its_end_is_read_as_far_as_it_goes()
    {
        byte[] whole = TestFlattened.Of(new TestCore().Load(Kernel, 0x1000, [1, 2, 3, 4]).Build());
        using MemoryFile lacksEnd = TestCore.Open(whole[..^16]);
        using MemoryFile lacksBytes = TestCore.Open(whole[..^18]);

        Assert.Equal([1, 2, 3, 4], MemoryFileTests.Read(lacksEnd, Kernel, 4));
        Assert.Equal("PV6125", Assert.Single(lacksEnd.Warnings).Code);
        Assert.Equal([1, 2], MemoryFileTests.Read(lacksBytes, Kernel, 2));
        Assert.Null(MemoryFileTests.Read(lacksBytes, Kernel, 3));
        Assert.All(lacksBytes.Warnings, static w => Assert.Equal("PV6125", w.Code));
    }

    [Fact]
    public void A_source_is_closed_with_the_dump_that_was_in_it()
    {
        var source = new BytesMemorySource(TestFlattened.Of(new TestKdump().Zlib(1, new byte[4096]).Build()));
        Assert.True(MemoryFile.TryOpen(source, "flat", null, out MemoryFile? file, out _));
        file.Dispose();
        Assert.True(source.IsDisposed);

        source = new BytesMemorySource(TestFlattened.Of([1, 2, 3]));
        Assert.False(MemoryFile.TryOpen(source, "flat", null, out _, out _));
        Assert.True(source.IsDisposed);
    }

    private static void AssertHolds(ReadOnlySpan<byte> expected, byte[] file, Random random)
    {
        List<PatchDiagnostic> warnings = [];
        Assert.True(FlattenedSource.TryOpen(new BytesMemorySource(file), warnings, out FlattenedSource? source, out _));
        using (source)
        {
            Assert.Empty(warnings);
            Assert.Equal(expected.Length, source.Length);
            byte[] all = new byte[expected.Length];
            Assert.True(source.TryRead(0, all));
            Assert.True(expected.SequenceEqual(all));
            int at = random.Next(expected.Length);
            byte[] part = new byte[random.Next(expected.Length - at)];
            Assert.True(source.TryRead(at, part));
            Assert.True(expected.Slice(at, part.Length).SequenceEqual(part));
            Assert.False(source.TryRead(at, new byte[expected.Length - at + 1]));
        }
    }
}
