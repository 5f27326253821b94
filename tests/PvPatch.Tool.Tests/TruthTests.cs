using System.Text.Json;
using PvPatch.Linux.Tests.Kernel;
using PvPatch.Tool.Demo;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

/// <summary>No success is told where something was not done, and no option is passed over in silence.</summary>
public sealed class TruthTests : IDisposable
{
    private readonly KernelFiles _files = new();

    public void Dispose() => _files.Dispose();

    [Fact]
    public void Sites_that_cannot_be_planned_are_listed_and_the_command_fails()
    {
        _files.Kernel.AddSite("irq.halt", through: SyntheticOps.IndexOf("irq.save_fl"));
        string path = _files.Write("wrong", _files.Kernel.Build());
        ToolResult text = ToolRunner.Run("sites", path);
        Assert.NotEqual(0, text.ExitCode);
        Assert.Contains("28 of 28 sites", text.Out, StringComparison.Ordinal);
        Assert.NotEmpty(text.Codes);
        ToolResult json = ToolRunner.Run("sites", path, "--json");
        Assert.Equal(text.ExitCode, json.ExitCode);
        Assert.Equal(28, json.Json.GetProperty("sites").GetArrayLength());
        Assert.Equal("pvpatch-failure", json.ErrorJson.GetProperty("format").GetString());
        JsonElement site = json.Json.GetProperty("sites")[0];
        Assert.Equal("address section slot type length clobbers old", string.Join(' ', site.EnumerateObject().Select(static m => m.Name)));
    }

    [Fact]
    public void Allowed_bytes_of_a_module_are_not_promised() =>
        ToolRunner.Run("plan", _files.Vmlinux, "--allowed", _files.Path("out"), "--module", "a.ko", "--at", "0xffffffffa0000000")
            .Fails(1, "PV7001");

    [Fact]
    public void A_plan_that_fails_writes_no_allowed_bytes()
    {
        ToolRunner.Run("plan", _files.Vmlinux, "--allowed", _files.Path("out"), "--backend", "zork").Fails(1, "PV6106");
        Assert.False(File.Exists(_files.Path("out")));
    }

    [Fact]
    public void A_pattern_of_diff_that_matches_no_slot_is_an_error() =>
        Assert.Contains("irq_disable", ToolRunner.Run("diff", _files.Vmlinux, "--backend", "native", "--against", "native", "--slot",
            "irq_dsable").Fails(1, "PV7003").Error, StringComparison.Ordinal);

    [Fact]
    public void A_pattern_that_the_document_would_pass_over_is_an_error() =>
        Assert.Equal(
            1, ToolRunner.Run("diff", _files.Vmlinux, "--backend", "native", "--against", "native", "--slot", "irq.*", "--json").ExitCode);

    [Fact]
    public void A_demo_that_does_not_hold_is_no_success()
    {
        DemoGuest guest = DemoGuest.Assemble(64);
        DemoRun good = DemoRun.Of(guest, guest.Registry.Backends[0], new PvPatch.Mechanisms.PatchPlanner());
        Assert.Equal(ExitCode.Success, DemoCommand.ExitCodeOf([good]));
        DemoRun[] bad =
        [
            new(good.Plan) { Verified = false, OutsideUntouched = true, WrittenAgain = 0, Restored = true },
            new(good.Plan) { Verified = true, OutsideUntouched = false, WrittenAgain = 0, Restored = true },
            new(good.Plan) { Verified = true, OutsideUntouched = true, WrittenAgain = 1, Restored = true },
            new(good.Plan) { Verified = true, OutsideUntouched = true, WrittenAgain = 0, Restored = false },
        ];
        Assert.All(bad, r => Assert.Equal(ExitCode.Internal, DemoCommand.ExitCodeOf([good, r])));
    }

    [Fact]
    public void A_part_of_the_memory_is_not_every_site()
    {
        using var guest = new GuestFiles();
        byte[] text = guest.Boot("native").Raw(".text");
        string memory = guest.Write("text.bin", text);
        ToolResult result = ToolRunner.Run(["verify", guest.Vmlinux, .. guest.Map, "--memory", memory, "--base",
            $"0x{SyntheticKernel.Text:x}", "--backend", "native"]).Succeeds();
        Assert.Contains("every site compared holds its bytes", result.Out, StringComparison.Ordinal);
    }
}
