using PvPatch.Linux.Dumps;
using PvPatch.Linux.Tests.Memory;
using PvPatch.Linux.Verify;

namespace PvPatch.Linux.Tests.Fuzz;

public sealed class MemoryFuzzTests
{
    private const int Usual = 4000;
    private static readonly DumpedKernel s_kernel = new();
    private static readonly DumpedKernel s_narrow = new(bitness: 32, form: SiteForm.Absolute);

    [Fact]
    public void Headers_and_notes_of_cores_survive_damage() =>
        FuzzRun.Run([Small(true, 62), Small(true, 3), Small(false, 3)], FuzzRun.Count(Usual), Open, 64, 256 << 10);

    [Fact]
    public void Finding_and_verifying_a_kernel_survives_damage()
    {
        MachineMemory machine = s_kernel.Boot(s_kernel.Native, 0x1e000000);
        byte[][] valid =
        [
            machine.VirtualCore().VmCoreInfo("KERNELOFFSET=1e000000", "OSRELEASE=6.1.0").Build(),
            machine.VirtualCore().Build(),
            s_kernel.Boot(null).VirtualCore().Build(),
        ];
        FuzzRun.Run(valid, FuzzRun.Count(Usual / 4), file => Verify(s_kernel, file, null), 64, 2 << 20);
    }

    [Fact]
    public void A_32_bit_kernel_survives_damage() =>
        FuzzRun.Run([s_narrow.Boot(s_narrow.Xen, 0x5000000).VirtualCore(false, 3).Build()], FuzzRun.Count(Usual / 4),
            file => Verify(s_narrow, file, null), 64, 2 << 20);

    [Fact]
    public void Raw_memory_survives_damage() =>
        FuzzRun.Run([s_kernel.Boot(s_kernel.Native)[".text"]], FuzzRun.Count(Usual / 4), file => Verify(s_kernel, file, s_kernel.Text), 64,
            2 << 20);

    [Fact]
    public void Compressed_dumps_survive_damage() =>
        FuzzRun.Run([Kdump(true).Build(), Kdump(false).Build()], FuzzRun.Count(Usual), Open, 128, 512 << 10);

    [Fact]
    public void Lime_dumps_survive_damage() =>
        FuzzRun.Run([new TestLime().Range(0x1000, new byte[64]).Range(0x10000, new byte[32]).Range(0x20000, [1]).Build()],
            FuzzRun.Count(Usual), Open, 64, 256 << 10);

    [Fact]
    public void Flattened_dumps_survive_damage() =>
        FuzzRun.Run([TestFlattened.Of(Small(true, 62), 50), TestFlattened.Of(Kdump(true).Build(), 4096)], FuzzRun.Count(Usual), Open, 128,
            512 << 10);

    [Fact]
    public void Packed_pages_survive_damage()
    {
        // Damage in the pages alone: what is around them stays sound.
        TestKdump dump = Kdump(true);
        byte[] whole = dump.Build();
        int at = dump.DescriptorOffset;
        FuzzRun.Run([whole[at..]], FuzzRun.Count(Usual), pages => Open([.. whole[..at], .. pages]), 1024, 1 << 20);
    }

    // A page of each kind of data; the third is snappy's.
    private static TestKdump Kdump(bool is64)
    {
        byte[] page = new byte[TestKdump.Block];
        new Random(1).NextBytes(page.AsSpan(0, 600));
        return new TestKdump(is64) { VmCoreInfo = [.. "OSRELEASE=6.1.0\nKERNELOFFSET=1e000000\n"u8], Frames = 200 }
            .Zlib(1, page).Raw(2, page).Packed(70, Snappier.Snappy.CompressToArray(page), 4).Packed(130, Zstandard(page), 0x20).Zlib(199, page);
    }

    private static byte[] Zstandard(byte[] page)
    {
        using var compressor = new ZstdSharp.Compressor();
        return compressor.Wrap(page).ToArray();
    }

    private static PatchDiagnostic? Open(byte[] file)
    {
        if (!MemoryFile.TryOpen(new BytesMemorySource(file), "core", null, out MemoryFile? memory, out PatchDiagnostic? error))
        {
            return error;
        }

        using (memory)
        {
            byte[] bytes = new byte[64];
            foreach (MemorySpace space in (MemorySpace[])[memory.VirtualSpace, memory.PhysicalSpace])
            {
                ulong end = 0;
                for (int i = 0; i < space.Segments.Count; i++)
                {
                    MemorySegment segment = space.Segments[i];
                    Assert.True(segment.Length > 0 && segment.Last >= segment.Address && (i == 0 || segment.Address > end));
                    bool isStored = memory.Kind != MemoryFileKind.Kdump;
                    Assert.InRange(segment.FileOffset, 0, memory.IsFlattened || !isStored ? long.MaxValue : file.Length - segment.Length);
                    Assert.True(space.TryRead(segment.Last, bytes.AsSpan(0, 1)) || !isStored);
                    _ = space.TryRead(segment.Last, bytes);
                    end = segment.Last;
                }
            }

            return null;
        }
    }

    private static PatchDiagnostic? Verify(DumpedKernel kernel, byte[] bytes, VirtualAddress? start)
    {
        if (!MemoryFile.TryOpen(new BytesMemorySource(bytes), "core", start, out MemoryFile? file, out PatchDiagnostic? error))
        {
            return error;
        }

        using (file)
        {
            if (!KernelMemoryLocator.TryLocate(kernel.Elf, file, out KernelMemory? memory, out error))
            {
                return error;
            }

            MemoryVerification result = KernelVerifier.Compare([kernel.Native, kernel.Xen], memory);
            int others = result.Count(MemorySiteState.Freed) + result.Count(MemorySiteState.Unreadable);
            Assert.Equal(result.Sites.Count, result.Compared + others);
            Assert.True(result.Best.Matched <= result.Compared);
            _ = result.ToDiagnostics(3);
            return null;
        }
    }

    private static byte[] Small(bool is64, ushort machine)
    {
        ulong high = machine == 62 ? 0xffffffff81000000 : 0xc1000000;
        return new TestCore(is64, machine)
            .Note("CORE", 1, new byte[32])
            .VmCoreInfo("OSRELEASE=6.1.0", "KERNELOFFSET=1e000000", "NUMBER(phys_base)=-5")
            .Load(high, 0x1000000, new byte[64])
            .Load(high + 64, 0x2000000, new byte[32])
            .Load(0, 0x3000000, new byte[16])
            .Build();
    }
}
