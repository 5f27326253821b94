using System.Buffers.Binary;
using System.Text.Json;
using PvPatch.KernelTests.Harness;

namespace PvPatch.KernelTests;

/// <summary>One stopped machine dumped in every form that QEMU has, and in others made of these: one verdict.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class DumpFormTests(BootedKernelFixture fixture, ITestOutputHelper output) : IDisposable
{
    private const int MemoryMiB = 384;
    private static readonly TimeSpan s_timeout = TimeSpan.FromMinutes(2);
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("pvpatch-forms-");

    public void Dispose()
    {
        _directory.Delete(recursive: true);
    }

    [Fact]
    public void The_verdict_is_the_same_from_every_form_of_one_machine_s_memory()
    {
        Require.KernelBooting();
        Require.Tool("makedumpfile", "makedumpfile");
        Require.Tool("sh", "dash");
        string image = fixture.Fetch(Kernels.Bookworm).ImagePath;
        IReadOnlyList<string> formats = Dump(image);
        output.WriteLine($"this QEMU writes {string.Join(", ", formats)}");
        Assert.Contains("kdump-zlib", formats);

        JsonElement core = Verify(image, "elf", "elfCore", false);
        Assert.Equal("patched", core.GetProperty("state").GetString());
        Assert.StartsWith("native", core.GetProperty("backend").GetString(), StringComparison.Ordinal);
        foreach (string format in formats.Where(
            static f => f.StartsWith("kdump-", StringComparison.Ordinal) && !f.EndsWith("-lzo", StringComparison.Ordinal)))
        {
            AssertSame(core, Verify(image, format, "kdump", !format.Contains("raw", StringComparison.Ordinal)));
        }

        if (formats.Contains("kdump-lzo"))
        {
            ToolResult refused = PvPatchTool.Run("verify", image, "--memory", PathOf("kdump-lzo"));
            Assert.Equal(2, refused.ExitCode);
            Assert.Contains("error PV6153", refused.Error, StringComparison.Ordinal);
        }

        // As makedumpfile brings the flattened form together.
        ToolResult joined = ExternalTool.Run("sh", ["-c", $"makedumpfile -R '{PathOf("joined")}' < '{PathOf("kdump-zlib")}'"], s_timeout);
        Assert.True(joined.Succeeded, joined.Tail());
        AssertSame(core, Verify(image, "joined", "kdump", false));

        AssertSame(core, Verify(image, "raw", "raw", false, "--base", "0"));
        MakeLime();
        AssertSame(core, Verify(image, "lime", "lime", false));
    }

    /// <summary>Boots the kernel, which KASLR moves, and writes its memory in all forms.</summary>
    private IReadOnlyList<string> Dump(string image)
    {
        MachineOptions options = new() { Kaslr = true, MemoryMiB = MemoryMiB };
        using QemuMachine machine = QemuMachine.Start(image, options);
        machine.RunTo(BootPoint.Ready);
        IReadOnlyList<string> formats = machine.Physical.CoreFormats();
        foreach (string format in formats.Where(static f => f != "win-dmp"))
        {
            machine.Physical.SaveCore(CoreForm.Physical, PathOf(format), format);
        }

        machine.Physical.Save(0, MemoryMiB << 20, PathOf("raw"));
        return formats;
    }

    /// <summary>What LiME writes of it: the first 640 KiB, and all from 1 MiB on.</summary>
    private void MakeLime()
    {
        using FileStream raw = File.OpenRead(PathOf("raw"));
        using FileStream lime = File.Create(PathOf("lime"));
        foreach ((long first, long end) in ((long, long)[])[(0x1000, 0xa0000), (0x100000, raw.Length)])
        {
            byte[] header = [.. "EMiL"u8, 1, 0, 0, 0, .. new byte[24]];
            BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(8), first);
            BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(16), end - 1);
            lime.Write(header);
            byte[] range = new byte[end - first];
            raw.Position = first;
            raw.ReadExactly(range);
            lime.Write(range);
        }
    }

    private JsonElement Verify(string image, string name, string kind, bool isFlattened, params string[] arguments)
    {
        JsonElement result = PvPatchTool.Verify(image, PathOf(name), 0, arguments);
        JsonElement memory = result.GetProperty("memory");
        output.WriteLine($"{name}, {new FileInfo(PathOf(name)).Length} bytes: {memory} {result.GetProperty("counts")}");
        Assert.Equal(kind, memory.GetProperty("kind").GetString());
        Assert.Equal(isFlattened, memory.GetProperty("flattened").GetBoolean());
        Assert.DoesNotContain(result.GetProperty("diagnostics").EnumerateArray(),
            static d => d.GetProperty("severity").GetString() is "error" or "warning" && d.GetProperty("code").GetString() != "PV6130");
        return result;
    }

    private static void AssertSame(JsonElement expected, JsonElement result)
    {
        foreach (string name in (string[])["state", "backend", "complete", "counts", "candidates", "sites"])
        {
            Assert.Equal(expected.GetProperty(name).GetRawText(), result.GetProperty(name).GetRawText());
        }

        foreach (string name in (string[])["slide", "piecesMatched"])
        {
            Assert.Equal(
                expected.GetProperty("memory").GetProperty(name).GetRawText(), result.GetProperty("memory").GetProperty(name).GetRawText());
        }
    }

    private string PathOf(string name)
    {
        return Path.Combine(_directory.FullName, name);
    }
}
