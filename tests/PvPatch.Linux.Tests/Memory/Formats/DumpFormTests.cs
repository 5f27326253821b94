using PvPatch.Linux.Dumps;
using PvPatch.Linux.Verify;

namespace PvPatch.Linux.Tests.Memory;

/// <summary>One machine's memory in every form: the same kernel, the same verdict.</summary>
public sealed class DumpFormTests
{
    private const ulong Start = 0x100000;
    private const ulong PhysicalText = 0x2e00000;
    private static readonly DumpedKernel s_kernel = new();

    public static TheoryData<string> Forms => ["core", "kdump", "lime", "raw", "flattened core", "flattened kdump"];

    [Theory]
    [MemberData(nameof(Forms))]
    public void A_kernel_is_found_and_verified_in_every_form(string form)
    {
        // KASLR moved it, and one site is tampered with.
        MachineMemory machine = s_kernel.Boot(s_kernel.Native, 0x1e000000);
        SiteDecisionBytes(machine, 3).Fill(0xcc);
        byte[] bytes = Dump(form, machine);
        VirtualAddress? start = form == "raw" ? Start : null;
        using MemoryFile file = TestCore.Open(bytes, start);
        KernelMemory memory = s_kernel.Locate(file);

        Assert.Equal((long)PhysicalText - unchecked((long)s_kernel.Text), memory.Displacement);
        Assert.Equal(0x1e000000, memory.Slide);
        MemoryVerification result = KernelVerifier.Compare([s_kernel.Native, s_kernel.Xen], memory);
        Assert.Equal(MemoryState.Tampered, result.State);
        Assert.Equal("native", result.Best.Machine.Backend);
        Assert.Equal(1, result.Count(MemorySiteState.Tampered));
        Assert.Equal(result.Sites.Count, result.Compared);
    }

    [Fact]
    public void Pages_that_cannot_be_unpacked_leave_their_sites_without_a_verdict_and_are_told_of()
    {
        MachineMemory machine = s_kernel.Boot(s_kernel.Native, 0x1e000000);
        var dump = new TestKdump();
        dump.Memory(Start / TestKdump.Block, machine.Flat(PhysicalText - Start));

        // The page of the first sites, which nothing is found by.
        ulong site = s_kernel.Native[0].Address.Value - s_kernel.Text + PhysicalText;
        dump.Packed(site / TestKdump.Block, [1, 2, 3], 1);
        using MemoryFile file = TestCore.Open(dump.Build());
        KernelMemory memory = s_kernel.Locate(file);
        MemoryVerification result = KernelVerifier.Compare([s_kernel.Native, s_kernel.Xen], memory);

        Assert.Equal(MemoryState.Patched, result.State);
        Assert.True(result.Count(MemorySiteState.Unreadable) > 0);
        Assert.False(result.IsComplete);
        PatchDiagnostic damage = Assert.Single(memory.Diagnostics, static d => d.Code == "PV6154");
        Assert.Equal("core", damage.Source);
        Assert.StartsWith("1 pages", damage.Found, StringComparison.Ordinal);
    }

    // Zeros but for the kernel in the last MiBs. No page tables lead to it, so all pages are looked at for some.
    [Fact]
    public void A_kernel_at_the_end_of_16_GiB_of_raw_memory_is_found()
    {
        const long at = (16L << 30) - (64 << 20);
        var source = new ZeroMemorySource(16L << 30, at, s_kernel.Boot(s_kernel.Native, 0x1e000000).Flat());
        Assert.True(MemoryFile.TryOpen(source, "raw", 0, out MemoryFile? file, out _));
        using (file)
        {
            KernelMemory memory = s_kernel.Locate(file);

            Assert.Equal(at - unchecked((long)s_kernel.Text), memory.Displacement);
            Assert.Equal(0x1e000000, memory.Slide);
        }
    }

    /// <summary>Zeros, and some bytes in them.</summary>
    private sealed class ZeroMemorySource(long length, long at, byte[] bytes) : MemorySource
    {
        public override long Length => length;

        public override bool TryRead(long offset, Span<byte> destination)
        {
            if (offset > length - destination.Length)
            {
                return false;
            }

            destination.Clear();
            long start = Math.Max(offset, at);
            long end = Math.Min(offset + destination.Length, at + bytes.Length);
            if (start < end)
            {
                bytes.AsSpan((int)(start - at), (int)(end - start)).CopyTo(destination[(int)(start - offset)..]);
            }

            return true;
        }
    }

    private static byte[] Dump(string form, MachineMemory machine)
    {
        byte[] flat = machine.Flat(PhysicalText - Start);
        return form switch
        {
            "core" => new TestCore().Load(0, Start, flat).Build(),
            "kdump" => new TestKdump().Memory(Start / TestKdump.Block, flat).Build(),
            "lime" => new TestLime().Range(0, new byte[0x1000]).Range(Start, flat).Build(),
            "raw" => flat,
            "flattened core" => TestFlattened.Of(new TestCore().Load(0, Start, flat).Build()),
            _ => TestFlattened.Of(new TestKdump().Memory(Start / TestKdump.Block, flat).Build()),
        };
    }

    private static Span<byte> SiteDecisionBytes(MachineMemory machine, int index) =>
        machine.At(s_kernel.Native[index].Address.Value)[..s_kernel.Native[index].Length];
}
