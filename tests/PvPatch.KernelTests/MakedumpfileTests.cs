using System.Text.Json;
using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>Dumps as makedumpfile makes them of a machine whose core has the kernel's own VMCOREINFO note.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
[Trait("Category", "Matrix")]
public sealed class MakedumpfileTests(ITestOutputHelper output) : IDisposable
{
    private static readonly TimeSpan s_timeout = TimeSpan.FromMinutes(2);
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("pvpatch-makedumpfile-");

    public void Dispose()
    {
        _directory.Delete(recursive: true);
    }

    // makedumpfile 1.7.2 knows kernels up to 6.1.
    [Theory]
    [InlineData("bullseye")]
    [InlineData("bookworm")]
    public void Dumps_by_makedumpfile_are_verified_in_every_form_but_lzo(string kernel)
    {
        Require.PackageFetching();
        Require.KernelBooting();
        Require.Tool("makedumpfile", "makedumpfile");
        Require.Tool("sh", "dash");
        Require.Tool("xz", "xz-utils");
        DebianModules modules = Require.Available(() => DebianModules.Fetch(TestedKernels.Named(kernel), "qemu_fw_cfg"));
        string image = modules.Kernel.ImagePath;
        string core = Core(modules);

        // QEMU's own core first: with the note nothing is looked for.
        JsonElement whole = Verify(image, core, "QEMU's core");

        string elf = Make(core, "elf", "-E", "-d", "31");
        Assert.True(new FileInfo(elf).Length * 2 < new FileInfo(core).Length, "pages were not left out");
        JsonElement reduced = Verify(image, elf, "makedumpfile -E -d 31");
        Assert.Equal(Compared(whole), Compared(reduced));

        // The sections that are gone once the kernel is up are free memory, which is left out.
        Assert.Equal(whole.GetProperty("counts").GetProperty("freed").GetInt32(), reduced.GetProperty("counts").GetProperty("freed")
            .GetInt32() + reduced.GetProperty("counts").GetProperty("unreadable").GetInt32());
        Assert.Equal(
            whole.GetProperty("memory").GetProperty("slide").GetString(), reduced.GetProperty("memory").GetProperty("slide").GetString());

        // The same pages compressed, and either form as it goes through a pipe.
        foreach ((string kind, string name, string[] options) in ((string, string, string[])[])[
            ("kdump", "zlib", ["-c", "-d", "31"]),
            ("elfCore", "flat", ["-F", "-E", "-d", "31"]),
            ("kdump", "flat-zlib", ["-F", "-c", "-d", "31"])])
        {
            JsonElement made = Verify(image, Make(core, name, options), $"makedumpfile {string.Join(' ', options)}");
            AssertSame(reduced, made, kind, options.Contains("-F"));
        }

        JsonElement qemu = Verify(image, PathOf("qemu-zlib"), "dump-guest-memory -z");
        AssertSame(whole, qemu, "kdump", isFlattened: true);

        // What was flattened and brought together again.
        string back = PathOf("back");
        ToolResult joined = ExternalTool.Run("sh", ["-c", $"makedumpfile -R '{back}' < '{PathOf("qemu-zlib")}'"], s_timeout);
        Assert.True(joined.Succeeded, joined.Tail());
        AssertSame(whole, Verify(image, back, "makedumpfile -R"), "kdump", isFlattened: false);

        // lzo is refused, and what the message says helps. So it is with parts.
        string lzo = Make(core, "lzo", "-l", "-d", "31");
        Refuses(image, lzo, "PV6153", "makedumpfile -c");
        AssertSame(reduced, Verify(image, Make(lzo, "anew", "-c"), "makedumpfile -c of lzo"), "kdump", isFlattened: false);
        ToolResult split = ExternalTool.Run(
            "makedumpfile", ["--split", "-c", "-d", "31", core, PathOf("part1"), PathOf("part2")], s_timeout);
        Assert.True(split.Succeeded, split.Tail());
        Refuses(image, PathOf("part1"), "PV6152", "--reassemble");
        ToolResult reassembled = ExternalTool.Run(
            "makedumpfile", ["--reassemble", PathOf("part1"), PathOf("part2"), PathOf("parts")], s_timeout);
        Assert.True(reassembled.Succeeded, reassembled.Tail());
        AssertSame(reduced, Verify(image, PathOf("parts"), "makedumpfile --reassemble"), "kdump", isFlattened: false);
    }

    private static void AssertSame(JsonElement expected, JsonElement result, string kind, bool isFlattened)
    {
        JsonElement memory = result.GetProperty("memory");
        Assert.Equal(kind, memory.GetProperty("kind").GetString());
        Assert.Equal(isFlattened, memory.GetProperty("flattened").GetBoolean());
        foreach (string name in (string[])["state", "backend", "counts", "candidates", "sites"])
        {
            Assert.Equal(expected.GetProperty(name).GetRawText(), result.GetProperty(name).GetRawText());
        }
    }

    private string Core(DebianModules modules)
    {
        string core = PathOf("core");
        MachineOptions options = new() { Kaslr = true, MemoryMiB = 384, VmCoreInfo = true };
        using QemuMachine machine = QemuMachine.Start(
            modules.Kernel.ImagePath, options, new Dictionary<string, ulong>(), modules.Unpack(_directory.FullName));
        machine.RunTo(BootPoint.Ready);
        machine.Physical.SaveCore(CoreForm.Physical, core);
        machine.Physical.SaveCore(CoreForm.Physical, PathOf("qemu-zlib"), "kdump-zlib");
        CoreFile.PutSegmentsFirst(core);
        return core;
    }

    private string Make(string core, string name, params string[] options)
    {
        // Flattened it goes to standard output.
        string path = PathOf(name);
        bool flat = options.Contains("-F");
        string command = $"makedumpfile {string.Join(' ', options)} '{core}' {(flat ? ">" : string.Empty)} '{path}'";
        ToolResult made = ExternalTool.Run("sh", ["-c", command], s_timeout);
        Assert.True(made.Succeeded, made.Tail());
        return path;
    }

    private JsonElement Verify(string image, string memory, string what)
    {
        JsonElement result = PvPatchTool.Verify(image, memory);
        JsonElement counts = result.GetProperty("counts");
        output.WriteLine(
            $"{what}: {result.GetProperty("state")} for {result.GetProperty("backend")}, {counts.GetProperty("compared")} of "
            + $"{counts.GetProperty("sites")} compared");
        Assert.Equal("patched", result.GetProperty("state").GetString());
        Assert.StartsWith("native", result.GetProperty("backend").GetString(), StringComparison.Ordinal);
        Assert.Equal("notes", result.GetProperty("memory").GetProperty("foundBy").GetString());
        Assert.Equal(counts.GetProperty("compared").GetInt32(), counts.GetProperty("patched").GetInt32());
        Assert.DoesNotContain(
            result.GetProperty("diagnostics").EnumerateArray(), static d => d.GetProperty("severity").GetString() is "warning" or "error");
        return result;
    }

    private static int Compared(JsonElement result) => result.GetProperty("counts").GetProperty("compared").GetInt32();

    private static void Refuses(string image, string memory, string code, string help)
    {
        ToolResult result = PvPatchTool.Run("verify", image, "--memory", memory);
        Assert.Equal(2, result.ExitCode);
        Assert.Empty(result.Output);
        Assert.Contains($"error {code}", result.Error, StringComparison.Ordinal);
        Assert.Contains(help, result.Error, StringComparison.Ordinal);
    }

    private string PathOf(string name)
    {
        return Path.Combine(_directory.FullName, name);
    }
}
