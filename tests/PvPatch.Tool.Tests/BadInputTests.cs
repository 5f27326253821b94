using PvPatch.Linux.Tests.Support;
using PvPatch.Tests.Shared;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

/// <summary>Files that are no kernels: every command says so, readably, with the right exit code, and writes nothing.</summary>
public sealed class BadInputTests : IDisposable
{
    private readonly KernelFiles _files = new();

    public static TheoryData<string, string> Inputs => new()
    {
        { "missing", "PV6002" },
        { "folder", "PV6002" },
        { "empty", "PV6001" },
        { "text", "PV6001" },
        { "truncated-header", "PV6010" },
        { "truncated", "PV6012" },
        { "other-machine", "PV6011" },
        { "truncated-vmlinuz", "PV6032" },
        { "vmlinuz-without-its-end", "PV6041" },
        { "no-boot-header", "PV6001" },
        { "gzip-of-nothing", "PV6040" },
        { "module", "PV6011" },
        { "no-tables", "PV6101" },
        { "wrong-stride", "PV1010" },
        { "no-type-information", "PV6103" },
    };

    public void Dispose() => _files.Dispose();

    [Theory]
    [MemberData(nameof(Inputs))]
    public void Every_command_says_what_is_wrong_and_writes_nothing(string input, string code)
    {
        string path = Make(input);
        IReadOnlyList<string> before = _files.Names();
        string output = _files.Path("out");
        string[][] commands =
        [
            ["info", path],
            ["sites", path],
            ["plan", path, "--backend", "native"],
            ["explain", path, "ffffffff81000000"],
            ["patch", path, "--backend", "native", "-o", output, "--save-plan", _files.Path("plan.json")],
            ["verify", path, "--memory", _files.Vmlinux, "--base", "ffffffff81000000"],
            ["diff", path, "--backend", "native", "--against", "kvm"],
            ["allowed", path, "-o", output],
            ["revert", _files.Vmlinux, "--original", path, "-o", output],
        ];
        foreach (string[] command in commands)
        {
            ToolResult result = ToolRunner.Run(command).Fails(2, code);
            Assert.Contains(path, result.Error, StringComparison.Ordinal);
            Assert.True(command[0] == "info" || result.Out.Length == 0, result.Out);

            ToolResult json = ToolRunner.Run([.. command, "--json"]);
            Assert.Equal(2, json.ExitCode);
            Assert.Equal("pvpatch-failure", json.ErrorJson.GetProperty("format").GetString());
            Assert.Equal(2, json.ErrorJson.GetProperty("exitCode").GetInt32());
            Assert.Equal(code, json.ErrorJson.GetProperty("diagnostics")[0].GetProperty("code").GetString());
        }

        Assert.Equal(before, _files.Names());
    }

    [Fact]
    public void A_file_name_that_is_empty_is_an_error() => ToolRunner.Run("info", "").Fails(1, "PV7001");

    [Fact]
    public void Any_file_cut_anywhere_is_an_error_and_never_a_stack_trace()
    {
        // Byte by byte through the headers, then in larger steps.
        for (int length = 0; length < _files.Bytes.Length; length += length < 64 ? 1 : 97)
        {
            string path = _files.Write("cut", _files.Bytes[..length]);
            ToolResult result = ToolRunner.Run("plan", path, "--backend", "native");
            Assert.Equal(2, result.ExitCode);
            Assert.StartsWith("error PV", result.Error, StringComparison.Ordinal);
            Assert.DoesNotContain("PV7099", result.Error, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Any_byte_of_the_headers_may_lie_and_never_gives_a_stack_trace()
    {
        var random = TestSeed.NewRandom();
        for (int i = 0; i < 400; i++)
        {
            byte[] bytes = [.. _files.Bytes];
            int headers = random.Next(2) == 0 ? 64 : bytes.Length;
            bytes[random.Next(headers)] = (byte)random.Next(256);
            bytes[^(1 + random.Next(700))] ^= (byte)(1 << random.Next(8)); // the section headers are last
            string path = _files.Write("lie", bytes);
            foreach (string command in (string[])["info", "sites"])
            {
                ToolResult result = ToolRunner.Run(command, path);
                Assert.True(result.ExitCode is 0 or 2 or 3, $"{i}: exit code {result.ExitCode}\n{result.Error}");
            }
        }
    }

    private string Make(string input) => input switch
    {
        "missing" => _files.Path("missing"),
        "folder" => Directory.CreateDirectory(_files.Path("folder")).FullName,
        "empty" => _files.Write("empty", ""),
        "text" => _files.Write("text", "These are not the bytes of a kernel.\n"),
        "truncated-header" => _files.Write("file", _files.Bytes[..40]),
        "truncated" => _files.Write("file", _files.Bytes[..^100]),
        "other-machine" => _files.Write("file", _files.Bytes.With16(18, 183)), // aarch64
        "truncated-vmlinuz" => _files.Write("file", File.ReadAllBytes(_files.Vmlinuz())[..(TestBzImage.PayloadAt + 1)]),
        "vmlinuz-without-its-end" => _files.Write("file", File.ReadAllBytes(_files.Vmlinuz())[..^64]), // the compressed kernel is there
        "no-boot-header" => _files.Write("file", File.ReadAllBytes(_files.Vmlinuz()).With32(0x202, 0)),
        "gzip-of-nothing" => _files.Write("file", TestBzImage.Gzip("not a kernel"u8.ToArray())),
        "module" => _files.Write("file",
            new TestElf(type: PvPatch.Linux.Files.ElfFileType.Relocatable).Code(".text", 0, 0xc3).Code(".init.text", 0, 0xc3).Build()),
        "no-tables" => _files.Write("file", new TestElf().Code(".text", 0xffffffff81000000, 0xc3).Build()),
        "wrong-stride" => WithSiteTable(),
        "no-type-information" => WithoutTypes(),
        _ => throw new ArgumentOutOfRangeException(nameof(input)),
    };

    private string WithSiteTable()
    {
        _files.Kernel.SiteTable = _files.Kernel.SiteTableBytes()[..^5];
        return _files.Write("file", _files.Kernel.Build());
    }

    private string WithoutTypes()
    {
        _files.Kernel.Without.Add(".BTF");
        return _files.Write("file", _files.Kernel.Build());
    }
}
