using System.Text.Json;
using PvPatch.Linux.Tests.Kernel;
using PvPatch.Plans;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

/// <summary>info, sites, plan and explain on a small kernel.</summary>
public sealed class KernelCommandTests : IDisposable
{
    private const int SiteCount = 27; // one for each of 23 slots, and four more

    private readonly KernelFiles _files = new();

    public void Dispose() => _files.Dispose();

    [Fact]
    public void Info_tells_tables_and_sites_of_each_slot()
    {
        string text = ToolRunner.Run("info", _files.Vmlinux).Succeeds().Out;
        Assert.Contains("linux-6.1", text, StringComparison.Ordinal);
        Assert.Contains("0xffffffff82a00040", text, StringComparison.Ordinal); // the ops table
        Assert.Matches("irq.save_fl +4 +2 ", text);
        JsonElement info = ToolRunner.Run("info", _files.Vmlinux, "--json").Succeeds().Json;
        Assert.Equal("pvpatch-info", info.GetProperty("format").GetString());
        Assert.True(info.GetProperty("supported").GetBoolean());
        Assert.Equal(SiteCount, info.GetProperty("sites").GetInt32());
        Assert.Equal("elf", info.GetProperty("file").GetProperty("kind").GetString());
        JsonElement slot = info.GetProperty("slots").EnumerateArray().First(static s => s.GetProperty("slot").GetString() == "irq.save_fl");
        Assert.Equal(2, slot.GetProperty("sites").GetInt32());
        Assert.Equal($"0x{SyntheticKernel.FunctionOf("irq.save_fl"):x}", slot.GetProperty("native").GetString());
    }

    [Fact]
    public void Info_reads_a_vmlinuz()
    {
        JsonElement info = ToolRunner.Run("info", _files.Vmlinuz(), "--json").Succeeds().Json;
        Assert.Equal("bzImage", info.GetProperty("file").GetProperty("kind").GetString());
        Assert.Equal("gzip", info.GetProperty("file").GetProperty("compression").GetString());
        Assert.Equal(SiteCount, info.GetProperty("sites").GetInt32());
    }

    [Fact]
    public void Info_of_a_kernel_without_sites_tells_what_it_is_and_fails()
    {
        _files.Kernel.Without.Add(".parainstructions");
        string path = _files.Write("bare", _files.Kernel.Build());
        ToolResult text = ToolRunner.Run("info", path).Fails(2, "PV6101");
        Assert.Contains("64-bit x86", text.Out, StringComparison.Ordinal);
        Assert.Contains(".altinstructions", text.Error, StringComparison.Ordinal);
        ToolResult json = ToolRunner.Run("info", path, "--json");
        Assert.Equal(2, json.ExitCode);
        Assert.False(json.Json.GetProperty("supported").GetBoolean());
        Assert.Equal("PV6101", json.Json.GetProperty("diagnostics")[0].GetProperty("code").GetString());
        Assert.Equal("PV6101", json.ErrorJson.GetProperty("diagnostics")[0].GetProperty("code").GetString());
    }

    [Theory]
    [InlineData("irq.*", 6)]
    [InlineData("irq_disable", 2)]
    [InlineData("*.wr*", 1)]
    [InlineData("mmu.write_cr?", 1)]
    public void Sites_are_chosen_by_slot(string glob, int count)
    {
        // irq.save_fl, irq.irq_disable and irq.irq_enable have two sites, irq.halt one; that makes seven for irq.* below.
        int expected = glob == "irq.*" ? 7 : count;
        JsonElement sites = ToolRunner.Run("sites", _files.Vmlinux, "--slot", glob, "--json").Succeeds().Json;
        Assert.Equal(expected, sites.GetProperty("sites").GetArrayLength());
        Assert.Equal(SiteCount, sites.GetProperty("total").GetInt32());
        Assert.Contains($"{expected} of {SiteCount} sites", ToolRunner.Run("sites", _files.Vmlinux, "--slot", glob).Succeeds().Out,
            StringComparison.Ordinal);
    }

    [Fact]
    public void Sites_have_the_same_members_as_those_of_a_plan()
    {
        JsonElement sites = ToolRunner.Run("sites", _files.Vmlinux, "--json").Succeeds().Json.GetProperty("sites");
        JsonElement planned = ToolRunner.Run("plan", _files.Vmlinux, "--backend", "native", "--json").Succeeds().Json.GetProperty("sites");
        Assert.Equal(SiteCount, planned.GetArrayLength());
        for (int i = 0; i < SiteCount; i++)
        {
            Assert.Equal(planned[i].ToString(), sites[i].ToString());
        }
    }

    [Fact]
    public void Every_site_has_the_documented_members()
    {
        foreach (JsonElement site in ToolRunner.Run("sites", _files.Vmlinux, "--json").Json.GetProperty("sites").EnumerateArray())
        {
            foreach (
                string name in (string[])["address", "section", "slot", "type", "length", "clobbers", "action", "reason", "old", "new"])
            {
                Assert.True(site.TryGetProperty(name, out _), name);
            }

            bool isCall = site.GetProperty("action").GetString() == "call";
            Assert.Equal(isCall, site.TryGetProperty("target", out _));
        }
    }

    [Fact]
    public void A_slot_that_does_not_exist_is_an_error_with_a_suggestion() =>
        Assert.Contains("\"irq_disable\"", ToolRunner.Run("sites", _files.Vmlinux, "--slot", "irq_dsable").Fails(1, "PV7003").Error,
            StringComparison.Ordinal);

    [Fact]
    public void A_plan_is_summed_up_and_can_be_read_back()
    {
        string text = ToolRunner.Run("plan", _files.Vmlinux, "--backend", "native").Succeeds().Out;
        Assert.Contains("3 inlined, 16 direct calls, 8 nops", text, StringComparison.Ordinal);
        ToolResult json = ToolRunner.Run("plan", _files.Vmlinux, "--backend", "native", "--json").Succeeds();
        PatchPlan plan = PlanJson.Read(System.Text.Encoding.UTF8.GetBytes(json.Out));
        Assert.Equal(SiteCount, plan.Count);
        Assert.Equal("native", plan.Backend);
    }

    [Theory]
    [InlineData("sites")]
    [InlineData("plan")]
    public void A_backend_that_does_not_exist_is_an_error_that_names_those_that_do(string command) =>
        Assert.Contains(
            "native", ToolRunner.Run(command, _files.Vmlinux, "--backend", "natvie").Fails(1, "PV6106").Error, StringComparison.Ordinal);

    [Fact]
    public void A_site_is_explained_by_any_of_its_addresses()
    {
        ulong address = _files.Kernel.Records.First(static r => r.Type == SyntheticOps.IndexOf("mmu.write_cr3")).Address.Value;
        string whole = ToolRunner.Run("explain", _files.Vmlinux, $"{address:x}").Succeeds().Out;
        Assert.Equal(whole, ToolRunner.Run("explain", _files.Vmlinux, $"0x{address + 5:X}").Succeeds().Out);
        Assert.Contains("mmu.write_cr3", whole, StringComparison.Ordinal);
        Assert.Contains("call qword [rel mmu.write_cr3]", whole, StringComparison.Ordinal);
        Assert.Contains($"call 0x{SyntheticKernel.FunctionOf("mmu.write_cr3"):x}", whole, StringComparison.Ordinal);
        Assert.Contains("direct call", whole, StringComparison.Ordinal);
    }

    [Fact]
    public void An_alternative_over_a_site_is_explained()
    {
        // The last site of the table has an alternative: mov byte [rdi],0 where PVUNLOCK is absent.
        int index = SiteCount - 3; // in order of address the two sites of .init.text come behind it
        JsonElement site = ToolRunner.Run("explain", _files.Vmlinux, $"site:{index}", "--json").Succeeds().Json;
        JsonElement native = site.GetProperty("backends")[0];
        Assert.Equal("lock.queued_spin_unlock", native.GetProperty("site").GetProperty("slot").GetString());
        Assert.Equal("!PVUNLOCK", site.GetProperty("alternatives")[0].GetProperty("condition").GetString());
        Assert.Equal("c6 07 00", site.GetProperty("alternatives")[0].GetProperty("replacement").GetString());
        Assert.Equal("mov byte [rdi],0", native.GetProperty("newCode")[0].GetProperty("text").GetString());
        Assert.Equal("c6 07 00 0f 1f 00", native.GetProperty("site").GetProperty("new").GetString()); // and a nop of 3
        string text = ToolRunner.Run("explain", _files.Vmlinux, $"site:{index}").Succeeds().Out;
        Assert.Contains("if !PVUNLOCK: mov byte [rdi],0", text, StringComparison.Ordinal);
    }

    [Fact]
    public void An_address_in_no_site_is_an_error_that_names_the_nearest()
    {
        ulong first = _files.Kernel.Records[0].Address.Value;
        ToolResult result = ToolRunner.Run("explain", _files.Vmlinux, $"{first + 7:x}").Fails(1, "PV7002");
        Assert.Contains($"{first:x}", result.Error, StringComparison.Ordinal);
        Assert.Contains($"{first + 16:x}", result.Error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("")]
    [InlineData("zork")]
    [InlineData("site:27")]
    [InlineData("site:-1")]
    [InlineData("site:")]
    [InlineData("123456789abcdef01")]
    [InlineData("native_halt+zork")]
    public void What_is_no_address_is_an_error(string text) => ToolRunner.Run("explain", _files.Vmlinux, text).Fails(1, "PV7002");
}
