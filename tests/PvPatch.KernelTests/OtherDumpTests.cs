using System.Globalization;
using System.Text.Json;
using PvPatch.KernelTests.Harness;
using PvPatch.Linux;
using PvPatch.Plans;

namespace PvPatch.KernelTests;

/// <summary>
/// <c>pvpatch verify</c> on cores that are not as they should be: too early, of another kernel, cut short, tampered with.
/// </summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class OtherDumpTests(BootedKernelFixture fixture, ITestOutputHelper output) : IDisposable
{
    // The boot that MemoryFormTests and DumpTests use too.
    private static readonly MachineOptions s_moved = new() { Kaslr = true, Core = CoreForm.Physical, MemoryMiB = 384 };

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("pvpatch-cores-");

    public void Dispose()
    {
        _directory.Delete(recursive: true);
    }

    // With KASLR: 5.10's original bytes are moved by it. The first line of the log is printed long before anything is patched.
    [Theory]
    [InlineData("bullseye")]
    [InlineData("bookworm")]
    [InlineData("trixie")]
    [InlineData("sid")]
    [InlineData("bookworm-i386")]
    [Trait("Category", "Matrix")]
    public void A_dump_from_before_the_kernel_patched_itself_says_so(string kernel)
    {
        PackageRequest request = TestedKernels.Named(kernel);
        Require.KernelBooting();
        string image = fixture.Fetch(request).ImagePath;
        string core = PathOf("core");
        MachineOptions options = s_moved with
        {
            Architecture = request.Architecture,
            Kaslr = request.Architecture == "amd64",
            Append = "earlyprintk=ttyS0,115200"
        };
        using (QemuMachine machine = QemuMachine.Start(image, options))
        {
            machine.RunTo("Linux version ");
            machine.Physical.SaveCore(CoreForm.Physical, core);
        }

        JsonElement result = PvPatchTool.Verify(image, core, exitCode: 7);

        output.WriteLine($"{kernel}: {result.GetProperty("memory")} {result.GetProperty("counts")}");
        Assert.Equal("notPatched", result.GetProperty("state").GetString());
        Assert.Equal(Count(result, "sites"), Count(result, "compared"));
        Assert.Contains(result.GetProperty("diagnostics").EnumerateArray(), static d => d.GetProperty("code").GetString() == "PV6135");
    }

    [Theory]
    [InlineData("trixie")]
    [InlineData("bookworm-cloud")]
    [InlineData("bookworm-rt")]
    [Trait("Category", "Matrix")]
    public void Memory_of_another_kernel_is_told_and_no_site_is(string kernel)
    {
        BootedKernel other = fixture.Boot(TestedKernels.Named(kernel), s_moved);
        ToolResult result = PvPatchTool.Run("verify", fixture.Fetch(Kernels.Bookworm).ImagePath, "--memory", other.ReadyCore!);

        output.WriteLine(result.Error);
        Assert.Equal(2, result.ExitCode);
        Assert.Empty(result.Output);
        Assert.Contains("error PV6128", result.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("PV6132", result.Error, StringComparison.Ordinal);
        Assert.InRange(result.Error.Length, 100, 3000);
    }

    [Fact]
    public void A_core_cut_short_is_compared_as_far_as_it_goes()
    {
        BootedKernel booted = fixture.Boot(Kernels.Bookworm, s_moved);
        string core = booted.ReadyCore!;
        (ulong code, ulong codeEnd) = booted.Report.PhysicalRange("Kernel code");
        (_, ulong bssEnd) = booted.Report.PhysicalRange("Kernel bss");
        long start = CoreFile.OffsetOf(core, code);
        long length = (long)(codeEnd - code);
        int whole = Count(PvPatchTool.Verify(booted.ImagePath, core), "compared");

        // Behind the kernel everything is there; within its code, all before the cut.
        Assert.Equal(whole, CutAt(CoreFile.OffsetOf(core, bssEnd), booted));
        int most = CutAt(start + length, booted);
        int half = CutAt(start + length / 2, booted);
        int few = CutAt(start + length / 8, booted);
        Assert.Equal(whole, most);
        Assert.InRange(half, whole / 5, whole - 1);
        Assert.InRange(few, 1, half - 1);

        // Before it nothing is; within the headers the file is not even a core.
        Refuses(start, "PV6128", booted);
        Refuses(CoreFile.OffsetOf(core, 0), "PV6124", booted);
        Refuses(200, "PV6123", booted);
        Refuses(40, "PV6122", booted);
        Refuses(3, "PV6121", booted);
        Refuses(0, "PV6124", booted);
    }

    [Fact]
    public void One_site_tampered_with_in_a_core_is_told_with_what_stands_there_and_what_may()
    {
        BootedKernel booted = fixture.Boot(Kernels.Bookworm, s_moved);
        KernelImage image = TestedKernels.Load(booted.ImagePath);
        PatchPlan plan = TestedKernels.Plan(image, new BootMachine());
        SiteDecision site = Enumerable.Range(0, plan.Count).Select(i => plan[i])
            .First(static d => d.Label == "irq.irq_disable" && d.Section == ".text");
        string core = PathOf("core");
        File.Copy(booted.ReadyCore!, core);
        ulong physical = booted.Report.PhysicalRange("Kernel code").Start
            + (site.Address.Value - (booted.AfterPatching.Start - booted.Slide));
        long offset = CoreFile.OffsetOf(core, physical);
        using (FileStream file = File.OpenWrite(core))
        {
            // jmp -2; ud2; ud2
            file.Position = offset;
            file.Write([0xeb, 0xfe, 0x0f, 0x0b, 0x0f, 0x0b]);
        }

        JsonElement json = PvPatchTool.Verify(booted.ImagePath, core, exitCode: 6);
        Assert.Equal("tampered", json.GetProperty("state").GetString());
        Assert.Equal("native", json.GetProperty("backend").GetString());
        Assert.Equal(1, Count(json, "tampered"));
        Assert.Equal(Count(json, "compared"), Count(json, "patched") + 1);
        JsonElement told = Assert.Single(
            json.GetProperty("sites").EnumerateArray(), static s => s.GetProperty("state").GetString() == "tampered");
        Assert.Equal($"0x{site.Address.Value:x}", told.GetProperty("address").GetString());
        Assert.Equal("eb fe 0f 0b 0f 0b", told.GetProperty("found").GetString());

        // fa cli and a nop of five bytes, as GNU as writes them.
        ToolResult text = PvPatchTool.Run("verify", booted.ImagePath, "--memory", core);
        output.WriteLine(text.Output);
        Assert.Equal(6, text.ExitCode);
        Assert.Contains("error PV6132", text.Error, StringComparison.Ordinal);
        Assert.Contains("tampered: 1 site holds", text.Output, StringComparison.Ordinal);
        Assert.Contains(string.Create(CultureInfo.InvariantCulture, $"0x{site.Address.Value:x} irq.irq_disable"), text.Output,
            StringComparison.Ordinal);
        Assert.Matches(@"found +eb fe 0f 0b 0f 0b +jmp 0x[0-9a-f]+; ud2; ud2\n", text.Output);
        Assert.Matches(@"original +ff 15 [0-9a-f ]+ +call qword \[rel .*\(original\)", text.Output);
        Assert.Matches(@"expected +fa 0f 1f 44 00 00 +cli; nop\(5\) +\(native", text.Output);
        Assert.Matches(@"expected +e8 [0-9a-f ]+ +call xen_irq_disable_direct.*\(xen\)", text.Output);
    }

    private int CutAt(long length, BootedKernel booted)
    {
        string path = PathOf("cut");
        CoreFile.CopyStart(booted.ReadyCore!, path, length);
        ToolResult run = PvPatchTool.Run("verify", booted.ImagePath, "--memory", path, "--json");
        JsonElement result = PvPatchTool.Parse(run.Output);

        // Only of a dump with every site that a running kernel keeps the verdict is one of the kernel.
        Assert.Equal(Count(result, "missing") > 0 ? 8 : 0, run.ExitCode);
        Assert.Equal(Count(result, "missing") == 0, result.GetProperty("complete").GetBoolean());
        output.WriteLine($"cut at 0x{length:x}: {result.GetProperty("memory")} {result.GetProperty("counts")}");
        string?[] codes = [.. result.GetProperty("diagnostics").EnumerateArray().Select(static d => d.GetProperty("code").GetString())];
        Assert.Equal("patched", result.GetProperty("state").GetString());
        Assert.Contains("PV6125", codes);
        Assert.Equal(Count(result, "unreadable") > 0, codes.Contains("PV6133"));
        Assert.Equal(Count(result, "sites"), Count(result, "compared") + Count(result, "freed") + Count(result, "unreadable"));
        return Count(result, "compared");
    }

    private void Refuses(long length, string code, BootedKernel booted)
    {
        string path = PathOf("cut");
        CoreFile.CopyStart(booted.ReadyCore!, path, length);
        ToolResult result = PvPatchTool.Run("verify", booted.ImagePath, "--memory", path);
        output.WriteLine($"cut at 0x{length:x}: {result.Error}");
        Assert.Equal(2, result.ExitCode);
        Assert.Contains($"error {code}", result.Error, StringComparison.Ordinal);
    }

    private static int Count(JsonElement result, string name) => result.GetProperty("counts").GetProperty(name).GetInt32();

    private string PathOf(string name)
    {
        return Path.Combine(_directory.FullName, name);
    }
}
