using System.Text.Json;
using PvPatch.Linux.Tests.Kernel;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

/// <summary>What a user says of machine and image, diff, allowed, and explain on every backend.</summary>
public sealed class MachineOptionsTests : IDisposable
{
    private readonly GuestFiles _guest = new();

    public void Dispose() => _guest.Dispose();

    [Fact]
    public void Backends_whose_functions_have_no_names_are_not_there()
    {
        Assert.Contains("backends           native\n", Run("info").Succeeds().Out, StringComparison.Ordinal);
        Assert.Contains("backends           native, kvm\n", Run("info", _guest.Map).Succeeds().Out, StringComparison.Ordinal);
        Run("plan", "--backend", "kvm").Fails(1, "PV6106");
    }

    [Fact]
    public void A_listing_of_a_running_kernel_is_taken_back_to_where_it_was_linked()
    {
        string moved = _guest.Write("kallsyms", GuestFiles.Listing(0x2600000));
        string expected = Run("explain", [_guest.SiteOf("cpu.io_delay").ToString("x"), .. _guest.Map]).Succeeds().Out;
        Assert.Contains("call kvm_io_delay", expected, StringComparison.Ordinal);
        Assert.Equal(expected, Run("explain", _guest.SiteOf("cpu.io_delay").ToString("x"), "--kallsyms", moved).Succeeds().Out);
    }

    [Fact]
    public void Info_tells_how_everything_was_found_out()
    {
        JsonElement info = Run("info", [.. _guest.Map, "--json"]).Succeeds().Json;
        Assert.Equal(".parainstructions, and no patch function among the slots", info.GetProperty("eraFrom").GetString());
        Assert.Equal("the kernel's type information (.BTF)", info.GetProperty("layoutFrom").GetString());
        Assert.Equal("a System.map", info.GetProperty("symbolsFrom").GetString());
        Assert.Equal("--era", Run("info", "--era", "linux-6.1", "--json").Succeeds().Json.GetProperty("eraFrom").GetString());
    }

    [Fact]
    public void A_module_is_planned_at_an_address_or_refused()
    {
        string text = _guest.Write("module.ko", "no module");
        Run("plan", "--backend", "native", "--module", text).Fails(1, "PV7001");
        Run("plan", "--backend", "native", "--module", text, "--at", "0xffffffffa0000000").Fails(2, "PV6140");
        Run("plan", "--backend", "native", "--module", text, "--at", "somewhere").Fails(1, "PV7002");
    }

    [Fact]
    public void The_order_of_the_slots_can_be_given()
    {
        string[] calleeSave = ["irq.save_fl", "irq.irq_disable", "irq.irq_enable", "mmu.read_cr2", "mmu.pte_val", "lock.queued_spin_unlock",
            "lock.vcpu_is_preempted"];
        string layout = _guest.Write(
            "layout", "bits 64\n" + string.Concat(SyntheticOps.Names.Select(n => $"{n}{(calleeSave.Contains(n) ? "*" : "")}\n")));
        string[] given = ["--era", "linux-6.1", "--layout", layout];
        JsonElement info = Run("info", [.. given, "--json"]).Succeeds().Json;
        Assert.Equal("--layout", info.GetProperty("layoutFrom").GetString());
        Assert.Equal(27, info.GetProperty("sites").GetInt32());
        Assert.Equal(Run("plan", "-b", "native").Succeeds().Out, Run("plan", [.. given, "-b", "native"]).Succeeds().Out);
        Run("info", "--layout", _guest.Write("zork", "zork zork zork zork\n")).Fails(2, "PV6160");
        Run("info", "--layout", _guest.Path("missing")).Fails(2, "PV6163");
        Run("info", "--layout", "").Fails(1, "PV7001");
    }

    [Fact]
    public void The_order_in_use_is_printed_as_it_can_be_given()
    {
        string text = Run("layout").Succeeds().Out;
        string[] slots = [.. text.Split('\n').Where(static l => l.Length > 0 && char.IsAsciiDigit(l[0]))];
        Assert.Contains("from the kernel's type information (.BTF)\nbits 64\n0 ", text, StringComparison.Ordinal);
        Assert.Equal(SyntheticOps.Names.Select(static (n, i) => $"{i} {n}"), slots.Select(static l => l.TrimEnd('*')));
        Assert.Contains(slots, static l => l.EndsWith(" irq.save_fl*", StringComparison.Ordinal));

        // Given to another command it is the same order, and printed again the same text but for where it is from.
        string[] given = ["--era", "linux-6.1", "--layout", _guest.Write("printed", text)];
        Assert.Equal(Run("plan", "-b", "native").Succeeds().Out, Run("plan", [.. given, "-b", "native"]).Succeeds().Out);
        Assert.Equal(slots, Run("layout", given).Succeeds().Out.Split('\n').Where(static l => l.Length > 0 && char.IsAsciiDigit(l[0])));
        JsonElement json = Run("layout", [.. given, "--json"]).Succeeds().Json;
        Assert.Equal("--layout", json.GetProperty("layoutFrom").GetString());
        Assert.Equal(slots.Length, json.GetProperty("slots").GetArrayLength());
        Assert.Equal(0, json.GetProperty("alike").GetArrayLength());
    }

    [Fact]
    public void Features_decide_what_a_guest_of_KVM_changes()
    {
        Assert.Contains("2 of 27 sites differ", Diff("kvm").Out, StringComparison.Ordinal); // io_delay, vcpu_is_preempted
        Assert.Contains("1 of 27 sites differ", Diff("kvm", "--kvm-features", "0x20").Out, StringComparison.Ordinal); // steal time alone
        Assert.Contains("1 of 27 sites differ", Diff("kvm", "--kvm-features", "2").Out, StringComparison.Ordinal); // no delay alone
        Assert.Equal(0, Diff("kvm", "--kvm-features", "0x0").ExitCode);
    }

    [Fact]
    public void Clocks_and_bits_of_hosts_are_taken_and_explained()
    {
        string map = _guest.Write("guests", GuestFiles.Listing(0)
            + $"{SyntheticKernel.Text + 0x730:x16} T vmware_platform_setup\n{SyntheticKernel.Text + 0x740:x16} T ms_hyperv_init_platform\n"
            + $"{SyntheticKernel.Text + 0x750:x16} T tdx_early_init\n{SyntheticKernel.Text + 0x760:x16} T "
                + $"tdx_safe_halt\n{SyntheticKernel.Text + 0x770:x16} T tdx_halt\n");
        string[] guests = ["--system-map", map];
        ToolResult Plan(params string[] options) => Run("plan", [.. guests, .. options]).Succeeds();
        Assert.Contains(
            "backends           native, kvm, hyperv, vmware, tdx\n", Run("info", guests).Succeeds().Out, StringComparison.Ordinal);
        Assert.Equal(Plan("-b", "vmware", "--vmware-clock", "none").Out, Plan("-b", "vmware").Out);
        ToolResult differences = Run("diff", [.. guests, "--backend", "native", "--against", "vmware"]);
        Assert.Equal(6, differences.ExitCode);
        Assert.Matches("cpu.io_delay +1 +call 0x[0-9a-f]+; nop +nop", differences.Out);
        Assert.Equal(Plan("-b", "hyperv", "--hyperv-features", "0x602", "--hyperv-hints", "0x404").Out, Plan("-b", "hyperv").Out);

        // A trust domain is a guest of KVM too, unless the host is said to be none.
        string delay = _guest.SiteOf("cpu.io_delay").ToString("x", System.Globalization.CultureInfo.InvariantCulture);
        string text = Run("explain", [delay, .. guests]).Succeeds().Out;
        Assert.Contains("tdx --kvm-features 0x0", text, StringComparison.Ordinal);
        Assert.Matches("(?m)^ .*vmware: .*nop", text);
    }

    [Fact]
    public void A_slot_file_changes_slots()
    {
        string slots = _guest.Write(
            "slots.json", """{ "irq.halt": "0xffffffff81000700", "mmu.read_cr3": "nop", "mmu.write_cr3": "kvm_io_delay" }""");
        JsonElement sites = Run("sites", [.. _guest.Map, "--slots", slots, "--json"]).Succeeds().Json.GetProperty("sites");
        JsonElement Site(string slot) => sites.EnumerateArray().First(s => s.GetProperty("slot").GetString() == slot);
        Assert.Equal("0xffffffff81000700", Site("irq.halt").GetProperty("target").GetString());
        Assert.Equal("nop", Site("mmu.read_cr3").GetProperty("action").GetString());
        Assert.Equal($"0x{GuestFiles.KvmIoDelay:x}", Site("mmu.write_cr3").GetProperty("target").GetString());
    }

    [Fact]
    public void What_is_wrong_with_an_option_is_said()
    {
        Run("plan", "-b", "native", "--cpus", "0").Fails(1, "PV7001");
        Run("plan", "-b", "native", "--cpus", "two").Fails(1, "PV7001");
        Run("plan", "-b", "native", "--cpu", "zork").Fails(1, "PV7001");
        Run("plan", "-b", "native", "--kvm-features", "0xzork").Fails(1, "PV7001");
        Run("plan", "-b", "native", "--hyperv-features", "0x100000000").Fails(1, "PV7001");
        Run("plan", "-b", "native", "--hyperv-hints", "-1").Fails(1, "PV7001");
        Assert.Contains("none, frequency, stolen-time", Run("plan", "-b", "native", "--vmware-clock", "zork").Fails(1, "PV7001").Error,
            StringComparison.Ordinal);
        Assert.Contains("linux-6.12", Run("plan", "-b", "native", "--era", "zork").Fails(1, "PV7001").Error, StringComparison.Ordinal);
        Run("plan", [.. _guest.Map, "--kallsyms", _guest.SystemMap, "-b", "native"]).Fails(1, "PV7001");
        Run("plan", "-b", "native", "--system-map", _guest.Path("missing")).Fails(2, "PV7007");
        Run("plan", "-b", "native", "--system-map", _guest.Write("map", "no symbols\n")).Fails(2, "PV6084");
        Run("plan", "-b", "native", "--slots", _guest.Path("missing")).Fails(2, "PV7007");
        Run("plan", "-b", "native", "--slots", _guest.Write("slots", "[]")).Fails(2, "PV6108");
        Run("plan", "-b", "native", "--slots", _guest.Write("slots", """{ "zork": null }""")).Fails(1, "PV2001");
        Run("plan", [.. _guest.Map, "-b", "native", "--slots", _guest.Write("slots", """{ "irq.halt": "zork" }""")]).Fails(1, "PV6086");
    }

    [Fact]
    public void An_image_patched_in_any_setting_is_known_by_its_original()
    {
        string patched = _guest.Path("patched");
        Run("patch", [.. _guest.Map, "-b", "kvm", "--kvm-features", "0x20", "-o", patched]).Succeeds();
        ToolRunner.Run(["revert", patched, "--original", _guest.Vmlinux, .. _guest.Map, "--kvm-features", "0x20", "-o",
            _guest.Path("back")]).Succeeds();
        Assert.Equal(File.ReadAllBytes(_guest.Vmlinux), File.ReadAllBytes(_guest.Path("back")));
    }

    [Fact]
    public void Two_backends_and_two_stored_plans_differ_alike()
    {
        ToolResult text = Diff("kvm");
        Assert.Equal(6, text.ExitCode);
        Assert.Matches("cpu.io_delay +1 +call 0x[0-9a-f]+; nop +call kvm_io_delay; nop", text.Out);
        Assert.Contains("call kvm_io_delay", Diff("kvm", "--slot", "io_*").Out, StringComparison.Ordinal);
        string native = _guest.Write("native", Run("plan", [.. _guest.Map, "-b", "native", "--json"]).Succeeds().Out);
        string kvm = _guest.Write("kvm", Run("plan", [.. _guest.Map, "-b", "kvm", "--json"]).Succeeds().Out);
        Assert.Equal(text.Out, ToolRunner.Run("diff", native, kvm).Out);
        Assert.Equal(0, ToolRunner.Run("diff", kvm, kvm).ExitCode);
        ToolResult json = ToolRunner.Run("diff", native, kvm, "--json");
        Assert.Equal(6, json.ExitCode);
        Assert.Equal(Diff("kvm", "--json").Out, json.Out);
        Assert.Equal(2, json.Json.GetProperty("differences").GetArrayLength());
    }

    [Fact]
    public void Diff_wants_two_plans_or_two_backends()
    {
        Run("diff").Fails(1, "PV7001");
        Run("diff", "--backend", "native").Fails(1, "PV7001");
        Run("diff", _guest.Vmlinux, "--backend", "native", "--against", "kvm").Fails(1, "PV7001");
        Run("diff", _guest.Vmlinux).Fails(2, "PV5001");
        Run("diff", _guest.Path("missing")).Fails(2, "PV5001");
    }

    [Fact]
    public void All_that_may_stand_at_each_site_is_listed()
    {
        ToolResult list = Run("allowed", _guest.Map).Succeeds();
        JsonElement sites = list.Json.GetProperty("sites");
        Assert.Equal("pvpatch-allowed", list.Json.GetProperty("format").GetString());
        Assert.Equal(27, sites.GetArrayLength());
        JsonElement delay = sites.EnumerateArray().First(static s => s.GetProperty("slot").GetString() == "cpu.io_delay");
        Assert.Equal(["original", "native", "kvm"],
            delay.GetProperty("allowed").EnumerateArray().Select(static a => a.GetProperty("of")[0].GetString()));
        string file = _guest.Path("allowed.json");
        Assert.Contains("for 27 sites", Run("allowed", [.. _guest.Map, "-o", file]).Succeeds().Out, StringComparison.Ordinal);
        Assert.Equal(list.Out, File.ReadAllText(file));
        Run("plan", [.. _guest.Map, "--allowed", _guest.Path("second")]).Succeeds();
        Assert.Equal(list.Out, File.ReadAllText(_guest.Path("second")));
        Run("allowed", [.. _guest.Map, "--backend", "native", "-o", file]).Succeeds();
        Assert.DoesNotContain("kvm", File.ReadAllText(file), StringComparison.Ordinal);
        Run("allowed", "-o", _guest.Vmlinux).Fails(3, "PV7004");
        Run("plan", "--allowed", _guest.Vmlinux).Fails(3, "PV7004");
    }

    [Fact]
    public void A_site_is_explained_on_every_backend_and_those_that_agree_stand_together()
    {
        string site = _guest.SiteOf("cpu.io_delay").ToString("x");
        string text = Run("explain", [site, .. _guest.Map]).Succeeds().Out;
        Assert.Contains("\n  native, kvm --kvm-features 0x0: direct call", text, StringComparison.Ordinal);
        Assert.Contains("\n  kvm: direct call", text, StringComparison.Ordinal);
        Assert.DoesNotContain(
            "\n  kvm: ", Run("explain", [site, .. _guest.Map, "--backend", "native"]).Succeeds().Out, StringComparison.Ordinal);
        JsonElement json = Run("explain", [site, .. _guest.Map, "--backend", "kvm", "--backend", "native", "--json"]).Succeeds().Json;
        Assert.Equal(
            ["kvm", "native"], json.GetProperty("backends").EnumerateArray().Select(static b => b.GetProperty("backend").GetString()));
    }

    [Theory]
    [InlineData("irq.save_fl")]
    [InlineData("save_fl")]
    public void A_slot_is_explained_by_its_sites(string slot)
    {
        string text = Run("explain", [slot, .. _guest.Map]).Succeeds().Out;
        Assert.Contains("Slot irq.save_fl: 2 of 27 sites", text, StringComparison.Ordinal);
        Assert.Matches("native +direct call +2 +call 0x", text);
        Assert.Contains($"0x{_guest.SiteOf("irq.save_fl"):x}", text, StringComparison.Ordinal);
        JsonElement json = Run("explain", [slot, .. _guest.Map, "--json"]).Succeeds().Json;
        Assert.Equal("pvpatch-explain-slot", json.GetProperty("format").GetString());
        Assert.Equal(2, json.GetProperty("backends")[0].GetProperty("sites").GetArrayLength());
    }

    private ToolResult Run(string command, params string[] more) => ToolRunner.Run([command, _guest.Vmlinux, .. more]);

    private ToolResult Diff(string against, params string[] more) =>
        Run("diff", [.. _guest.Map, "--backend", "native", "--against", against, .. more]);
}
