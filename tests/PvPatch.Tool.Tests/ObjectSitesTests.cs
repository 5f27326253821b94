using System.Text.Json;
using PvPatch.Tests.Shared;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

/// <summary><c>sites --records</c> and <c>sites --relocations</c> on files of GNU as and ld.</summary>
public sealed class ObjectSitesTests : IDisposable
{
    private const string Source = """
        .include "pvpatch.inc"
        .text
        .globl _start, native_cli
        _start:
            pv_call pv_ops, 1
            call *pv_ops+8(%rip)
            call native_cli
            call native_cli
            lea native_cli(%rip), %rax
            pv_branch tracing, 1f, size=2
        1:  pv_region native
            nop
            pv_variant xen
            cli
            pv_end_region
        native_cli: ret
        .data
        pv_ops: .skip 16
        .size pv_ops, 16
        """;

    private readonly KernelFiles _files = new();

    public void Dispose() => _files.Dispose();

    [Fact]
    public void Records_of_every_mechanism_are_listed()
    {
        string path = Build(link: true);
        JsonElement document = ToolRunner.Run("sites", path, "--records", "--json").Succeeds().Json;
        Assert.Equal("pvpatch-object-sites", document.GetProperty("format").GetString());
        Assert.True(document.GetProperty("linked").GetBoolean());
        JsonElement[] sites = [.. document.GetProperty("sites").EnumerateArray()];
        Assert.Equal(
            ["ops 1", "staticKey tracing", "variant native", "variant xen"],
            sites.Select(static s => $"{Text(s, "mechanism")} {Text(s, "name")}"));
        Assert.Equal((".text", "0x0"), (Text(sites[0], "section"), Text(sites[0], "offset")));
        Assert.Equal(("66 90", "fa"), (Text(sites[1], "old"), Text(sites[3], "code")));

        string text = ToolRunner.Run("sites", path, "--records").Succeeds().Out;
        Assert.Matches(@"\n\.text\+0x0 +ops +1 +6 +call qword ", text);
        Assert.Matches(@"\n\.text\+0x\w+ +variant +xen +1 +cli\n4 sites", text);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Relocations_are_listed_by_slot_and_function(bool link)
    {
        string path = Build(link);
        ToolResult result = ToolRunner.Run(
            "sites", "--relocations", path, "--table", "pv_ops", "--function", "native_cli", "--json").Succeeds();
        Assert.Equal(
            ["pv_ops.1", "pv_ops.1", "native_cli", "native_cli"],
            result.Json.GetProperty("sites").EnumerateArray().Select(static s => Text(s, "name")));
        Assert.Equal("PV6184", Text(Assert.Single(result.Json.GetProperty("diagnostics").EnumerateArray()), "code"));

        result = ToolRunner.Run(
            "sites", "--relocations", path, "--table", "pv_ops=1", "--function", "native_cli=pv_ops.0", "--json").Succeeds();
        Assert.Equal(
            ["pv_ops.0", "pv_ops.0"], result.Json.GetProperty("sites").EnumerateArray().Select(static s => Text(s, "name")));
    }

    [Fact]
    public void What_does_not_go_together_is_told()
    {
        string path = Build(link: false);
        foreach (string[] arguments in (string[][])
        [
            ["sites", path, "--records", "--relocations", "--table", "pv_ops"],
            ["sites", path, "--relocations"],
            ["sites", path, "--table", "pv_ops"],
            ["sites", path, "--records", "--function", "f"],
            ["sites", path, "--records", "--backend", "native"],
            ["sites", path, "--relocations", "--table", "pv_ops", "--slot", "x"],
            ["sites", path, "--relocations", "--table", "pv_ops=0"],
            ["sites", path, "--relocations", "--table", "pv_ops=5000"],
            ["sites", path, "--relocations", "--function", "native_cli=pv_ops.0"],
            ["sites", path, "--relocations", "--table", ""],
            ["sites", path, "--relocations", "--function", "=pv_ops.0"],
            ["sites", path, "--relocations", "--table", "pv_ops", "--table", "pv_ops=1"],
        ])
        {
            ToolResult result = ToolRunner.Run(arguments);
            Assert.Equal((1, ""), (result.ExitCode, result.Out));
        }
    }

    [Fact]
    public void A_file_without_records_or_relocations_is_told()
    {
        string path = Build(link: true, "--strip-all");
        Assert.Equal(2, ToolRunner.Run("sites", path, "--relocations", "--table", "pv_ops").ExitCode);
        Assert.Equal(0, ToolRunner.Run("sites", path, "--records").ExitCode); // records need no symbols
        Assert.Equal(2, ToolRunner.Run("sites", _files.Vmlinux, "--records").ExitCode);
    }

    internal static string Text(JsonElement element, string name) => element.GetProperty(name).GetString()!;

    private string Build(bool link, string option = "--emit-relocs") => Build(_files, link, option);

    internal static string Build(KernelFiles files, bool link, string option = "--emit-relocs")
    {
        string source = files.Write("guest.s", Source + "\n");
        string output = files.Path("guest.o");
        Run("as", "--64", "-I", Includes(), "-o", output, source);
        if (link)
        {
            Run("ld", "-m", "elf_x86_64", option, "-o", files.Path("guest"), output);
        }

        return files.Path(link ? "guest" : "guest.o");
    }

    private static string Includes()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "PvPatch.sln")))
        {
            folder = Path.GetDirectoryName(folder);
        }

        return Path.Combine(folder!, "src", "PvPatch", "Records");
    }

    private static void Run(string program, params string[] arguments)
    {
        string? path = Requirement.FindProgram(program);
        Requirement.That(path is not null, $"the program {program} is not installed (package binutils)");
        using var process = System.Diagnostics.Process.Start(path!, arguments);
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }
}
