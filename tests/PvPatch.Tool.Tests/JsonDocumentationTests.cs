using System.Text.Json;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

/// <summary>What <c>--json</c> prints is what docs/json.md says.</summary>
public sealed class JsonDocumentationTests : IDisposable
{
    private readonly KernelFiles _files = new();

    public void Dispose() => _files.Dispose();

    [Fact]
    public void Every_member_of_every_document_is_in_the_documentation()
    {
        string documentation = File.ReadAllText(Path.Combine(Root(), "docs", "json.md"));
        foreach (JsonElement document in Documents())
        {
            string format = document.GetProperty("format").GetString()!;
            Assert.Contains($"`{format}`", documentation, StringComparison.Ordinal);
            Assert.Equal(format == "pvpatch-demo" ? 2 : 1, document.GetProperty("version").GetInt32());
            foreach (string name in Members(document))
            {
                Assert.True(documentation.Contains($"`{name}`", StringComparison.Ordinal), $"{format}: {name}");
            }
        }
    }

    [Fact]
    public void Every_exit_code_is_in_the_documentation()
    {
        string documentation = File.ReadAllText(Path.Combine(Root(), "docs", "tool.md"));
        foreach (ExitCode exitCode in Enum.GetValues<ExitCode>())
        {
            Assert.Contains($"| {(int)exitCode} |", documentation, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Every_command_and_option_is_in_the_documentation()
    {
        string documentation = File.ReadAllText(Path.Combine(Root(), "docs", "tool.md"));
        var tool = new CommandLine.CommandSet();
        foreach (CommandLine.ToolCommand command in tool.Commands)
        {
            Assert.Contains($"`pvpatch {command.Definition.Name}", documentation, StringComparison.Ordinal);
            Assert.All(command.Definition.Options, o => Assert.Contains(o.Name, documentation, StringComparison.Ordinal));
        }
    }

    private IEnumerable<JsonElement> Documents()
    {
        string output = _files.Path("out");
        string plan = _files.Path("plan.json");
        string[] info = ["info", _files.Vmlinux];
        yield return ToolRunner.Run("demo", "--json").Succeeds().Json;
        yield return ToolRunner.Run([.. info, "--json"]).Succeeds().Json;
        yield return ToolRunner.Run("layout", _files.Vmlinux, "--json").Succeeds().Json;
        yield return ToolRunner.Run("sites", _files.Vmlinux, "--json").Succeeds().Json;
        yield return ToolRunner.Run("sites", ObjectSitesTests.Build(_files, link: false), "--records", "--json").Succeeds().Json;
        yield return ToolRunner.Run("plan", _files.Vmlinux, "--backend", "native", "--json").Succeeds().Json;
        yield return ToolRunner.Run("explain", _files.Vmlinux, "site:0", "--json").Succeeds().Json;
        yield return ToolRunner.Run("explain", _files.Vmlinux, "site:24", "--json").Succeeds().Json;
        yield return ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", "-o", output, "--save-plan", plan, "--json").Succeeds()
            .Json;
        yield return ToolRunner.Run("revert", output, "--plan", plan, "-o", _files.Path("back"), "--json").Succeeds().Json;
        using var guest = new GuestFiles();
        DumpedMachine machine = guest.Boot("native").Put(guest.SiteOf("irq.halt"), 0xeb, 0xfe);
        yield return ToolRunner.Run(["verify", guest.Vmlinux, .. guest.Map, "--memory", guest.Core(machine), "--json"]).Json;
        yield return ToolRunner.Run(["diff", guest.Vmlinux, .. guest.Map, "--backend", "native", "--against", "kvm", "--json"]).Json;
        yield return ToolRunner.Run(["explain", guest.Vmlinux, .. guest.Map, "irq.halt", "--json"]).Succeeds().Json;
        yield return ToolRunner.Run("allowed", guest.Vmlinux, "--json").Succeeds().Json;
        yield return AuditTests.ReadBehind(_files, 3).Json;
        yield return AuditTests.NotFollowed(_files).Json;
        yield return ToolRunner.Run("allowed", guest.Vmlinux, "-o", output, "--json").Succeeds().Json;
        yield return ToolRunner.Run("info", _files.Path("missing"), "--json").ErrorJson;
        yield return ToolRunner.Run("info", _files.Write("text", "no kernel"), "--json").ErrorJson;
    }

    private static IEnumerable<string> Members(JsonElement element) => element.ValueKind switch
    {
        // The names of actions and reasons are members of the summary's two counts.
        JsonValueKind.Object => element.EnumerateObject().SelectMany(static m => Members(m.Value).Prepend(m.Name)),
        JsonValueKind.Array => element.EnumerateArray().SelectMany(Members),
        _ => [],
    };

    private static string Root()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "PvPatch.sln")))
        {
            folder = Path.GetDirectoryName(folder);
        }

        return folder ?? throw new InvalidOperationException("the tests do not run inside the repository");
    }
}
