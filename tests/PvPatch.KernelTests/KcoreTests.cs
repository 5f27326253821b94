using PvPatch.KernelTests.Harness;
using Xunit.Abstractions;

namespace PvPatch.KernelTests;

/// <summary>The tool within a guest, on the memory of the kernel that runs it: <c>pvpatch verify /vmlinuz --memory /proc/kcore</c>.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
[Trait("Category", "Matrix")]
public sealed class KcoreTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    [SkippableTheory]
    [InlineData("bookworm")]
    public void A_running_kernel_is_verified_through_proc_kcore(string kernel)
    {
        Require.KernelBooting();
        Require.Tool("ldd", "libc-bin");
        Require.Tool("xz", "xz-utils");
        string path = fixture.Fetch(TestedKernels.Named(kernel)).ImagePath;
        var program = new GuestProgram
        {
            Script = $"""
                export DOTNET_EnableDiagnostics=0 DOTNET_TieredCompilation=1
                ls -l /proc/kcore
                time -v {Path.Combine(DotnetPath, "dotnet")} /tool/PvPatch.Tool.dll verify /vmlinuz --memory /proc/kcore --json
                echo "exit $?"

                """,
        };
        program.AddRuntime();
        program.AddLinked("/usr/bin/xz");
        program.Add("vmlinuz", path);
        foreach (string file in (string[])["PvPatch.Tool.dll", "PvPatch.Tool.runtimeconfig.json", "PvPatch.Tool.deps.json", "PvPatch.Linux.dll", "PvPatch.dll", "Iced.dll", "Spectre.Console.dll", "System.CommandLine.dll", "Microsoft.Extensions.Logging.Abstractions.dll", "Microsoft.Extensions.DependencyInjection.Abstractions.dll"])
        {
            program.Add($"tool/{file}", Path.Combine(AppContext.BaseDirectory, file));
        }

        using QemuMachine machine = QemuMachine.Start(path, new MachineOptions { Kaslr = true, MemoryMiB = 1536 }, new Dictionary<string, ulong>(), [], program);
        machine.RunTo(BootPoint.Ready);
        output.WriteLine(machine.ReadReport().Output);
    }

    private static string DotnetPath => Path.GetFullPath(Path.Combine(Path.GetDirectoryName(typeof(object).Assembly.Location)!, "../../.."));
}
