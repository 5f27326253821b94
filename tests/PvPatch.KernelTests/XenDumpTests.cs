using System.Buffers.Binary;
using System.Globalization;
using System.Text.Json;
using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>Cores of whole machines under Xen: where dom0's pages are, only page tables say for sure.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
[Trait("Category", "Matrix")]
public sealed class XenDumpTests(BootedKernelFixture fixture, ITestOutputHelper output) : IDisposable
{
    private const ulong LinkBase = 0xffff_ffff_8000_0000;

    // The boot that DumpTests uses too.
    private static readonly MachineOptions s_options = new()
    {
        Xen = new XenOptions { Dom0Processors = 2 },
        Core = CoreForm.Physical,
        MemoryMiB = 384
    };

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("pvpatch-cores-");

    private string CorePath => Path.Combine(_directory.FullName, "core");

    public void Dispose()
    {
        _directory.Delete(recursive: true);
    }

    [Fact]
    public void A_dom0_in_scattered_pages_is_found_through_page_tables()
    {
        BootedKernel booted = fixture.Boot(Kernels.Bookworm, s_options);
        JsonElement whole = Verify(booted, booted.ReadyCore!);
        File.Copy(booted.ReadyCore!, CorePath);

        int pages = ScatteredCore.Reverse(
            CorePath, unchecked(booted.Report.Symbol("init_top_pgt") + Displacement(whole)), booted.Report.Symbol("_text"),
            booted.Report.Symbol("__end_rodata"));
        JsonElement scattered = Verify(booted, CorePath);

        Assert.True(pages > 4096, $"{pages} pages");
        Assert.Equal("pageTables", scattered.GetProperty("memory").GetProperty("foundBy").GetString());
        Assert.Equal("virtual", scattered.GetProperty("memory").GetProperty("addresses").GetString());
        Assert.Equal(0UL, Displacement(scattered));
        Assert.Equal(whole.GetProperty("counts").ToString(), scattered.GetProperty("counts").ToString());
    }

    // Xen unpacks dom0's kernel into memory that it gives away later, in part or not at all.
    [Fact]
    public void A_copy_of_the_kernels_file_is_not_taken_for_the_kernel()
    {
        BootedKernel booted = fixture.Boot(Kernels.Bookworm, s_options);
        JsonElement whole = Verify(booted, booted.ReadyCore!);
        File.Copy(booted.ReadyCore!, CorePath);
        string elf = Path.Combine(_directory.FullName, "vmlinux");
        BzImage.ExtractElf(booted.ImagePath, elf);

        // Far below the kernel, so that it is met first, and not at its link address.
        ulong place = 0x200_0000;
        Assert.True(unchecked(LinkBase + 0x100_0000 + Displacement(whole)) > place + (128 << 20));
        PutSegments(elf, CorePath, place);
        JsonElement result = Verify(booted, CorePath);

        Assert.Equal(whole.GetProperty("counts").ToString(), result.GetProperty("counts").ToString());

        // The control: the copy alone is a kernel that was not patched yet.
        string alone = Path.Combine(_directory.FullName, "alone");
        CoreFile.CopyStart(CorePath, alone, CoreFile.OffsetOf(CorePath, place + (128 << 20)));
        Assert.Equal("notPatched", PvPatchTool.Verify(booted.ImagePath, alone, exitCode: 7).GetProperty("state").GetString());
    }

    private JsonElement Verify(BootedKernel booted, string core)
    {
        JsonElement result = PvPatchTool.Verify(booted.ImagePath, core);
        output.WriteLine(
            $"{result.GetProperty("state")} for {result.GetProperty("backend")}: {result.GetProperty("memory")} "
            + $"{result.GetProperty("counts")}");
        Assert.Equal("patched", result.GetProperty("state").GetString());
        Assert.Equal("xen --cpus 2", result.GetProperty("backend").GetString());
        return result;
    }

    private static ulong Displacement(JsonElement result)
    {
        string text = result.GetProperty("memory").GetProperty("displacement").GetString()!;
        ulong value = ulong.Parse(text.AsSpan(3), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
        return text[0] == '-' ? unchecked(0 - value) : value;
    }

    /// <summary>
    /// Writes what an ELF64 file loads into memory: its first segment to a place, the others as far from it as they are linked.
    /// </summary>
    private static void PutSegments(string elf, string core, ulong place)
    {
        byte[] image = File.ReadAllBytes(elf);
        int table = (int)BinaryPrimitives.ReadInt64LittleEndian(image.AsSpan(32));
        int count = BinaryPrimitives.ReadUInt16LittleEndian(image.AsSpan(56));
        long start = CoreFile.OffsetOf(core, 0);
        using FileStream file = File.OpenWrite(core);
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> segment = image.AsSpan(table + (i * 56), 56);
            ulong address = BinaryPrimitives.ReadUInt64LittleEndian(segment[16..]);
            if (BinaryPrimitives.ReadUInt32LittleEndian(segment) == 1 && address >= LinkBase)
            {
                file.Position = start + (long)(place + address - LinkBase - 0x100_0000);
                file.Write(image.AsSpan(
                    (int)BinaryPrimitives.ReadInt64LittleEndian(segment[8..]), (int)BinaryPrimitives.ReadInt64LittleEndian(segment[32..])));
            }
        }
    }
}
