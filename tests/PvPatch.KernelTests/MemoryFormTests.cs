using System.Buffers.Binary;
using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>The forms in which a booted kernel's memory is kept: raw, as ELF cores, and of a kernel that chose its place.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class MemoryFormTests(BootedKernelFixture fixture)
{
    private const ulong LinkBase = 0xffff_ffff_8000_0000;

    [Fact]
    public void With_kaslr_the_image_is_found_where_the_guest_says_it_is()
    {
        BootedKernel moved = fixture.Boot(Kernels.Bookworm, Moved(CoreForm.Physical));
        BootedKernel native = fixture.Boot(Kernels.Bookworm);

        Assert.DoesNotContain("nokaslr", moved.Report.CommandLine, StringComparison.Ordinal);
        Assert.Equal(0UL, native.Slide);
        Assert.Equal(moved.Report.Symbol("_text") - native.Report.Symbol("_text"), moved.Slide);
        Assert.Equal(0UL, moved.Slide % (2 << 20));

        // Every pointer of the table is relocated by the slide, in both dumps.
        ulong[] expected = [.. native.Words("pv_ops").Select(word => word < LinkBase ? word : word + moved.Slide)];
        Assert.Equal(expected, moved.Words("pv_ops"));
        Assert.Equal(expected, moved.Words("pv_ops", BootPoint.Ready));
    }

    [Fact]
    public void A_physical_core_has_the_image_at_the_address_of_iomem()
    {
        BootedKernel moved = fixture.Boot(Kernels.Bookworm, Moved(CoreForm.Physical));
        (ulong code, ulong codeEnd) = moved.Report.PhysicalRange("Kernel code");
        int length = (int)(codeEnd - code);

        Assert.Equal(
            moved.AfterPatching.ReadKernel(moved.AfterPatching.Start, length), Read(moved.AfterPatchingCore, code, length, physical: true));
        Assert.Equal(moved.Ready.ReadKernel(moved.Ready.Start, length), Read(moved.ReadyCore, code, length, physical: true));
    }

    [Fact]
    [Trait("Category", "Matrix")]
    public void A_paged_core_has_the_image_at_its_own_address()
    {
        BootedKernel moved = fixture.Boot(Kernels.Bookworm, Moved(CoreForm.Paged));
        ulong banner = moved.Report.Symbol("linux_banner");
        byte[] expected = moved.Ready.ReadKernel(banner, 64);

        Assert.StartsWith("Linux version ", System.Text.Encoding.ASCII.GetString(expected), StringComparison.Ordinal);
        Assert.Equal(expected, Read(moved.AfterPatchingCore, banner, 64, physical: false));
        Assert.Equal(expected, Read(moved.ReadyCore, banner, 64, physical: false));
    }

    [Fact]
    public void The_raw_file_is_the_memory_from_its_start_on()
    {
        BootedKernel kernel = fixture.Boot(Kernels.Bookworm);
        byte[] raw = File.ReadAllBytes(kernel.AfterPatching.FilePath);

        Assert.Equal(kernel.AfterPatching.End - kernel.AfterPatching.Start, (ulong)raw.Length);
        int offset = (int)(kernel.Report.Symbol("linux_banner") - kernel.AfterPatching.Start);
        Assert.True(raw.AsSpan(offset).StartsWith("Linux version "u8));
    }

    [Fact]
    [Trait("Category", "Matrix")]
    public void The_5_10_kernel_chooses_its_nops_by_the_processor()
    {
        BootedKernel amd = fixture.Boot(Kernels.Bullseye);
        BootedKernel intel = fixture.Boot(
            Kernels.Bullseye, new MachineOptions { Cpu = "Skylake-Client-v4", Append = "noreplace-smp" });

        Assert.Contains("AuthenticAMD", amd.Report.CpuInfo, StringComparison.Ordinal);
        Assert.Contains("GenuineIntel", intel.Report.CpuInfo, StringComparison.Ordinal);
        Assert.Equal(amd.Report.Symbol("k8_nops"), amd.Words("ideal_nops")[0]);
        Assert.Equal(intel.Report.Symbol("p6_nops"), intel.Words("ideal_nops")[0]);
    }

    private static MachineOptions Moved(CoreForm core)
    {
        return new MachineOptions { Kaslr = true, Core = core, MemoryMiB = 384 };
    }

    /// <summary>Bytes out of an ELF64 core: the first PT_LOAD whose file part has the address.</summary>
    private static byte[] Read(string? path, ulong address, int length, bool physical)
    {
        Assert.NotNull(path);
        using FileStream file = File.OpenRead(path);
        byte[] header = Bytes(file, 0, 64);
        Assert.Equal(4, header[16]); // ET_CORE
        ulong table = BinaryPrimitives.ReadUInt64LittleEndian(header.AsSpan(32));
        long count = BinaryPrimitives.ReadUInt16LittleEndian(header.AsSpan(56));
        if (count == 0xffff)
        {
            // PN_XNUM: too many for the field, so the number is sh_info of the first section. Linux maps the few pages of
            // its espfix stacks tens of thousands of times, and a core by page tables has a segment for each.
            byte[] section = Bytes(file, BinaryPrimitives.ReadUInt64LittleEndian(header.AsSpan(40)), 64);
            count = BinaryPrimitives.ReadUInt32LittleEndian(section.AsSpan(44));
        }

        for (long index = 0; index < count; index++)
        {
            byte[] segment = Bytes(file, table + (ulong)(index * 56), 56);
            ulong start = BinaryPrimitives.ReadUInt64LittleEndian(segment.AsSpan(physical ? 24 : 16));
            ulong size = BinaryPrimitives.ReadUInt64LittleEndian(segment.AsSpan(32));
            if (segment[0] == 1 && address >= start && address - start < size)
            {
                Assert.True((ulong)length <= size - (address - start), "The range crosses a segment.");
                return Bytes(file, BinaryPrimitives.ReadUInt64LittleEndian(segment.AsSpan(8)) + (address - start), length);
            }
        }

        throw new InvalidDataException($"{address:x} is in no segment of {path}.");
    }

    private static byte[] Bytes(FileStream file, ulong offset, int length)
    {
        byte[] bytes = new byte[length];
        file.Position = (long)offset;
        file.ReadExactly(bytes);
        return bytes;
    }
}
