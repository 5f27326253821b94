using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;
using PvPatch.KernelTests.Harness;
using PvPatch.Linux;
using PvPatch.Tests.Shared;

namespace PvPatch.KernelTests;

/// <summary>
/// The tool within a guest, on the memory of the kernel that runs it: <c>pvpatch verify /vmlinuz --memory /proc/kcore</c>.
/// </summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
[Trait("Category", "Matrix")]
public sealed partial class KcoreTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    private const long MostHeap = 192 << 20;
    private const ulong LinkStart = 0xffff_ffff_8100_0000;

    [Theory]
    [InlineData("bullseye", "native")]
    [InlineData("bookworm", "native")]
    [InlineData("trixie", "native")]
    [InlineData("sid", "native")]
    [InlineData("bookworm", "kvm-0x22a2-2cpu")]
    [InlineData("bookworm", "xen-2cpu")]
    public void A_running_kernel_is_verified_through_proc_kcore(string kernel, string boot)
    {
        Require.KernelBooting();
        Require.Tool("ldd", "libc-bin");
        Require.Tool("xz", "xz-utils");
        Require.Tool("zstd", "zstd");
        string path = fixture.Fetch(TestedKernels.Named(kernel)).ImagePath;
        BootConfiguration configuration = BootConfiguration.Named(boot);
        MachineOptions options = configuration.Options with
        {
            MemoryMiB = 1536,
            Kaslr = boot == "native",
            Timeout = TimeSpan.FromMinutes(10)
        };
        KernelImage image = TestedKernels.Load(path);
        _ = image.Symbols!.TryGetAddress(HypervisorLeaves.Function, out VirtualAddress cpuid);

        string text = Run(path, options, new Dictionary<string, ulong> { [HypervisorLeaves.Function] = cpuid.Value });

        Match size = Size().Match(text);
        Match end = End().Match(text);
        Assert.True(size.Success && end.Success, text);
        output.WriteLine(
            $"{kernel} {boot}: /proc/kcore of {size.Groups[1].Value} bytes; "
            + $"{string.Join(", ", Times().Matches(text).Select(static m => m.Value.Trim()))}");
        Assert.True(
            long.Parse(size.Groups[1].ValueSpan, CultureInfo.InvariantCulture) > 1L << 40, "/proc/kcore claims all addresses there are");
        int start = text.IndexOf('{', StringComparison.Ordinal);
        Assert.True(start >= 0 && end.Groups[1].Value == "0", text);
        JsonElement result = PvPatchTool.Parse(text[start..(text.IndexOf("\n}\n", StringComparison.Ordinal) + 3)]);
        JsonElement counts = result.GetProperty("counts");
        JsonElement memory = result.GetProperty("memory");
        output.WriteLine(
            $"{result.GetProperty("state")} for {result.GetProperty("backend")}, {counts.GetProperty("compared")} of "
            + $"{counts.GetProperty("sites")} compared, {memory}");
        Assert.Equal("patched", result.GetProperty("state").GetString());
        Assert.Equal(configuration.Machine.Backend, result.GetProperty("backend").GetString()!.Split(' ')[0]);
        Assert.Equal(image.Sites.Count, counts.GetProperty("sites").GetInt32());
        Assert.Equal(image.Sites.Count, counts.GetProperty("patched").GetInt32() + counts.GetProperty("freed").GetInt32());
        Assert.Equal("virtual", memory.GetProperty("addresses").GetString());
        Assert.Equal("notes", memory.GetProperty("foundBy").GetString());

        // Where the kernel itself says it is.
        ulong slide = ulong.Parse(
            Start().Match(text).Groups[1].ValueSpan, NumberStyles.HexNumber, CultureInfo.InvariantCulture) - LinkStart;
        Assert.Equal(string.Create(CultureInfo.InvariantCulture, $"+0x{slide:x}"), memory.GetProperty("slide").GetString());
    }

    private static string Run(string path, MachineOptions options, Dictionary<string, ulong> symbols)
    {
        // With a bound for the heap: the tool reads what it needs and no more, whatever size the file claims to have.
        var program = new GuestProgram
        {
            Script = $"""
                export DOTNET_EnableDiagnostics=0 DOTNET_GCHeapHardLimit=0x{MostHeap:x}
                ls -l /proc/kcore
                grep ' T _text$' /proc/kallsyms
                time -v {DotnetHost.Path} /tool/PvPatch.Tool.dll verify /vmlinuz --memory /proc/kcore --json
                echo "exit code $?"

                """,
        };
        program.AddRuntime();
        program.AddLinked("/usr/bin/xz");
        program.AddLinked("/usr/bin/zstd");
        program.Add("vmlinuz", path);
        foreach (string file in PvPatchTool.Files)
        {
            program.Add($"tool/{Path.GetFileName(file)}", file);
        }

        using QemuMachine machine = QemuMachine.Start(path, options, symbols, [], program);
        machine.RunTo(BootPoint.Ready);
        return machine.ReadReport().Output;
    }

    // "-r--------    1 0        0        140737471590400 Nov 20 10:28 /proc/kcore"
    [GeneratedRegex(@"(\d+) \S+ +\d+ +\S+ /proc/kcore")]
    private static partial Regex Size();

    [GeneratedRegex(@"([0-9a-f]{16}) T _text")]
    private static partial Regex Start();

    [GeneratedRegex(@"\nexit code (\d+)\s*$")]
    private static partial Regex End();

    [GeneratedRegex(@"\t(User|System) time.*|\tMaximum resident.*")]
    private static partial Regex Times();
}
