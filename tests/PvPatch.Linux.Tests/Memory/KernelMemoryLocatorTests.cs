using PvPatch.Linux.Dumps;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Memory;

public sealed class KernelMemoryLocatorTests
{
    private static readonly DumpedKernel s_kernel = new();

    [Fact]
    public void A_kernel_at_its_link_addresses_is_found_there()
    {
        using MemoryFile file = s_kernel.Boot(s_kernel.Native).Open();
        KernelMemory memory = s_kernel.Locate(file);

        Assert.Equal(KernelFoundBy.LinkAddress, memory.FoundBy);
        Assert.Equal((0, 0), (memory.Displacement, memory.Slide));
        Assert.Empty(memory.Diagnostics);
        AssertReads(memory, s_kernel);
    }

    [Theory]
    [InlineData(0x200000)]
    [InlineData(0x1e000000)]
    [InlineData(0x3c000000)]
    [InlineData(-0x200000)]
    public void A_slide_is_found_by_the_kernels_bytes(long slide)
    {
        using MemoryFile file = s_kernel.Boot(s_kernel.Native, slide).Open();
        KernelMemory memory = s_kernel.Locate(file);

        Assert.Equal(KernelFoundBy.Signature, memory.FoundBy);
        Assert.False(memory.IsPhysical);
        Assert.Equal((slide, slide), (memory.Displacement, memory.Slide));
        AssertReads(memory, s_kernel);
    }

    [Fact]
    public void The_notes_of_a_core_are_followed_where_they_are_true()
    {
        MachineMemory machine = s_kernel.Boot(s_kernel.Native, 0x1e000000);
        using MemoryFile file = machine.VirtualCore().VmCoreInfo("KERNELOFFSET=1e000000").Open();
        KernelMemory memory = s_kernel.Locate(file);

        Assert.Equal(KernelFoundBy.Notes, memory.FoundBy);
        Assert.Equal(0x1e000000, memory.Slide);
        Assert.Empty(memory.Diagnostics);
    }

    [Fact]
    public void Notes_that_are_wrong_are_told_of_and_the_kernel_is_found_all_the_same()
    {
        MachineMemory machine = s_kernel.Boot(s_kernel.Native, 0x1e000000);
        using MemoryFile file = machine.VirtualCore().VmCoreInfo("KERNELOFFSET=2e000000", "NUMBER(phys_base)=77").Open();
        KernelMemory memory = s_kernel.Locate(file);

        Assert.Equal(KernelFoundBy.Signature, memory.FoundBy);
        Assert.Equal(0x1e000000, memory.Slide);
        Assert.Equal("PV6131", Assert.Single(memory.Diagnostics).Code);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(0x1e000000)]
    public void In_physical_memory_the_slide_is_told_by_the_kernels_pointers(long slide)
    {
        using MemoryFile file = s_kernel.Boot(s_kernel.Native, slide).PhysicalCore(0x2e00000).Open();
        KernelMemory memory = s_kernel.Locate(file);

        Assert.True(memory.IsPhysical);
        Assert.Equal(slide, memory.Slide);
        Assert.Equal(unchecked(0x2e00000 - (long)s_kernel.Text), memory.Displacement);
        AssertReads(memory, s_kernel);
    }

    [Fact]
    public void Notes_give_the_physical_place_too()
    {
        // phys_base: physical = virtual - 0xffffffff80000000 + phys_base, so 0x2e00000 - 0x1000000 - slide for the text.
        const long slide = 0x1e000000;
        const long physicalBase = 0x2e00000 - 0x1000000 - slide;
        using MemoryFile file = s_kernel.Boot(s_kernel.Native, slide).PhysicalCore(0x2e00000)
            .VmCoreInfo($"KERNELOFFSET={slide:x}", $"NUMBER(phys_base)={physicalBase}").Open();
        KernelMemory memory = s_kernel.Locate(file);

        Assert.Equal(KernelFoundBy.Notes, memory.FoundBy);
        Assert.True(memory.IsPhysical);
        Assert.Equal(slide, memory.Slide);
    }

    [Fact]
    public void A_32_bit_kernel_is_found_in_both_forms()
    {
        var kernel = new DumpedKernel(bitness: 32, form: SiteForm.Absolute);
        foreach (long slide in (long[])[0, 0x5000000])
        {
            using MemoryFile file = kernel.Boot(kernel.Native, slide).VirtualCore(is64: false, machine: 3).Open();
            KernelMemory memory = kernel.Locate(file);

            Assert.Equal(slide, memory.Slide);
            AssertReads(memory, kernel);
        }
    }

    [Theory]
    [InlineData(0xffffffff81000000UL, 0)]
    [InlineData(0xffffffff9f000000UL, 0x1e000000)]
    public void Raw_memory_with_the_right_base_needs_no_remark(ulong start, long slide)
    {
        using MemoryFile file = TestCore.Open(s_kernel.Boot(s_kernel.Native, slide).Flat(), start);
        KernelMemory memory = s_kernel.Locate(file);

        Assert.Equal((slide, slide), (memory.Displacement, memory.Slide));
        Assert.Empty(memory.Diagnostics);
        AssertReads(memory, s_kernel);
    }

    [Theory]
    [InlineData(0xffffffff81200000UL)]
    [InlineData(0xffffffff81003000UL)]
    [InlineData(0UL)]
    public void Raw_memory_with_another_base_is_found_by_content_and_the_right_base_is_told(ulong start)
    {
        using MemoryFile file = TestCore.Open(s_kernel.Boot(s_kernel.Native, 0x400000).Flat(), start);
        KernelMemory memory = s_kernel.Locate(file);

        PatchDiagnostic warning = Assert.Single(memory.Diagnostics);
        Assert.Equal("PV6130", warning.Code);
        Assert.StartsWith("0xffffffff81400000", warning.Expected, StringComparison.Ordinal);
        Assert.Equal(0x400000, memory.Slide);
        AssertReads(memory, s_kernel);
    }

    [Theory]
    [InlineData(0xffffffff81400010UL)]
    [InlineData(0xffffffff814fffffUL)]
    [InlineData(0x1234567UL)]
    public void A_base_that_is_off_by_no_whole_pages_is_put_right_by_the_banner(ulong start)
    {
        using MemoryFile file = TestCore.Open(s_kernel.Boot(s_kernel.Native, 0x400000).Flat(inFront: 0x3001), start);
        KernelMemory memory = s_kernel.Locate(file);

        PatchDiagnostic warning = Assert.Single(memory.Diagnostics);
        Assert.Equal("PV6130", warning.Code);
        Assert.StartsWith("0xffffffff813fcfff", warning.Expected, StringComparison.Ordinal);
        Assert.Equal(0x400000, memory.Slide);
        AssertReads(memory, s_kernel);
    }

    [Fact]
    public void A_banner_across_the_chunks_of_the_search_is_seen()
    {
        // The search reads 64 pages at a time: the banner, 0x1000040 behind the text, begins 16 bytes before the end of some.
        using MemoryFile file = TestCore.Open(s_kernel.Boot(s_kernel.Native).Flat(inFront: 0x40000 - 16 - 0x40 + 1), 1);
        Assert.Equal(0, s_kernel.Locate(file).Slide);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_kernel_whose_tables_begin_with_zeros_is_found_behind_any_number_of_empty_pages(bool zeroStarts)
    {
        var kernel = new DumpedKernel(zeroStarts: zeroStarts);
        const int empty = 520; // of 8 MiB: 4 GiB, twice as many places of 2 MiB as may be found wrong
        byte[] zeros = new byte[8 << 20];
        const ulong offset = 64 + 56 * (empty + 2);
        var core = new TestCore();
        for (ulong i = 0; i < empty; i++)
        {
            core.Load(0, 0x1000000 + i * (ulong)zeros.Length, i == 0 ? zeros : [], (ulong)zeros.Length, offset);
        }

        core.Load(0, 0x200000000, kernel.Boot(kernel.Native, 0x1e000000).Flat());
        using MemoryFile file = core.Open();

        Assert.Equal(0x1e000000, kernel.Locate(file).Slide);
    }

    [Theory]
    [InlineData(0xffffffff81200000UL, 0x200000L)]
    [InlineData(0x1000000UL, null)]
    public void Code_alone_is_enough_and_then_the_slide_is_that_of_the_base_if_it_can_be(ulong start, long? slide)
    {
        // One byte in three hundred is changed by the start: function entries and the like.
        byte[] text = s_kernel.Boot(s_kernel.Native)[".text"];
        for (int at = 0; at < text.Length; at += 300)
        {
            text[at] ^= 0x55;
        }

        using MemoryFile file = TestCore.Open(text, start);
        KernelMemory memory = s_kernel.Locate(file);

        Assert.Equal(unchecked((long)(start - s_kernel.Text)), memory.Displacement);
        Assert.Equal(slide, memory.Slide);
        Assert.Equal(slide is null ? ["PV6139"] : [], memory.Diagnostics.Select(d => d.Code));
    }

    [Fact]
    public void Another_kernel_is_not_taken_for_this_one()
    {
        var other = new DumpedKernel(seed: 2);
        using MemoryFile file = other.Boot(other.Native).VirtualCore().VmCoreInfo("OSRELEASE=6.2.0").Open();

        PatchDiagnostic error = NotFound(s_kernel.Elf, file);

        Assert.Equal("PV6128", error.Code);
        Assert.Contains("6.2.0", error.Found, StringComparison.Ordinal);
        Assert.Contains("Linux version 6.1.0", error.Expected, StringComparison.Ordinal);
    }

    [Fact]
    public void A_kernel_with_another_banner_is_another_build()
    {
        MachineMemory machine = s_kernel.Boot(s_kernel.Native);
        machine[".rodata"][0x40 + 15] = (byte)'7';
        using MemoryFile file = machine.Open();

        Assert.Contains("another banner", NotFound(s_kernel.Elf, file).Found, StringComparison.Ordinal);
    }

    [Fact]
    public void Constant_data_that_was_changed_in_a_few_places_does_not_hide_the_kernel()
    {
        MachineMemory machine = s_kernel.Boot(s_kernel.Native, 0x400000);
        machine[".rodata"].AsSpan(0x400, 0x200).Clear();
        using MemoryFile file = machine.Open();
        KernelMemory memory = s_kernel.Locate(file);

        Assert.True(memory.PiecesMatched < memory.PiecesCompared);
        Assert.Equal(0x400000, memory.Slide);
    }

    [Fact]
    public void The_memory_of_a_machine_too_narrow_for_the_kernel_is_refused()
    {
        using MemoryFile file = new TestCore(true, 3).Load(0xc1000000, 0x1000000, new byte[64]).Open();

        Assert.Contains("32-bit machine", NotFound(s_kernel.Elf, file).Found, StringComparison.Ordinal);
    }

    [Fact]
    public void An_image_without_anything_to_know_it_by_is_told_of()
    {
        ElfImage elf = ElfImage.Read(new TestElf().Code(".text", 0xffffffff81000000, new byte[0x1000]).Build());
        using MemoryFile file = TestCore.Open(new byte[0x1000], 0xffffffff81000000);

        Assert.Equal("PV6129", NotFound(elf, file).Code);
    }

    [Fact]
    public void A_search_of_one_page_over_and_over_comes_to_an_end()
    {
        // Every page looks like the beginning of the kernel's data.
        byte[] page = s_kernel.Boot(null)[".rodata"][..4096];
        byte[] all = new byte[8 << 20];
        for (int at = 0; at < all.Length; at += page.Length)
        {
            page.CopyTo(all, at);
        }

        var core = new TestCore();
        for (ulong i = 0; i < 64; i++)
        {
            // One behind the other: a page with nothing behind it would be all that the dump has of the kernel.
            core.Load(0, 0x10000000 + i * (ulong)all.Length, i == 0 ? all : [], (ulong)all.Length, (ulong)(64 + (66 * 56)));
        }

        using MemoryFile file = core.Open();
        PatchDiagnostic error = NotFound(s_kernel.Elf, file);
        Assert.Equal("PV6128", error.Code);
        Assert.Contains("looks like the kernel", error.Help, StringComparison.Ordinal);
    }

    private static PatchDiagnostic NotFound(ElfImage elf, MemoryFile file)
    {
        Assert.False(KernelMemoryLocator.TryLocate(elf, file, out KernelMemory? memory, out PatchDiagnostic? error), memory?.ToString());
        return error;
    }

    private static void AssertReads(KernelMemory memory, DumpedKernel kernel)
    {
        byte[] bytes = new byte[kernel.SiteLength];
        Assert.True(memory.TryRead(kernel.Site(3), bytes));
        Assert.Equal(kernel.Native[3].NewBytes, bytes);
        Assert.False(memory.TryRead(kernel.Text + 0x10000000, bytes));
    }
}
