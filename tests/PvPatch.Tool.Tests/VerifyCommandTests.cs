using System.Buffers.Binary;
using System.Text.Json;
using PvPatch.Linux.Tests.Kernel;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

/// <summary>verify, on memory of a small kernel.</summary>
public sealed class VerifyCommandTests : IDisposable
{
    private const int SiteCount = 27;
    private const ulong Slide = 0x1c00000;

    private readonly GuestFiles _guest = new();

    public void Dispose() => _guest.Dispose();

    [Theory]
    [InlineData("native")]
    [InlineData("kvm")]
    public void The_backend_a_machine_ran_on_is_told_and_where_KASLR_put_it(string backend)
    {
        string core = _guest.Core(_guest.Boot(backend, Slide));
        ToolResult text = Verify(core).Succeeds();
        Assert.Contains($"patched for {backend}: every site holds its bytes", text.Out, StringComparison.Ordinal);
        Assert.Contains("slide +0x1c00000", text.Out, StringComparison.Ordinal);
        JsonElement json = Verify(core, "--json").Succeeds().Json;
        Assert.Equal("pvpatch-verification", json.GetProperty("format").GetString());
        Assert.Matches(@"^pvpatch \d+\.\d+\.\d+", json.GetProperty("tool").GetString());
        Assert.Equal((_guest.Vmlinux, core), (json.GetProperty("image").GetString(), json.GetProperty("memory").GetProperty("path").GetString()));
        Assert.Equal("patched", json.GetProperty("state").GetString());
        Assert.Equal(backend, json.GetProperty("backend").GetString());
        Assert.Equal(SiteCount, json.GetProperty("counts").GetProperty("compared").GetInt32());
        Verify(core, "--backend", backend).Succeeds();
    }

    [Fact]
    public void The_setting_a_machine_ran_in_is_told_too()
    {
        // Without features a guest of KVM is as on bare hardware: the tie is told, and either may be asked for.
        string core = _guest.Core(_guest.Boot("native"));
        Assert.Contains("native, kvm --kvm-features 0x0", Verify(core).Succeeds().Error, StringComparison.Ordinal);
        Verify(core, "--backend", "kvm").Succeeds();
        Verify(core, "--backend", "kvm", "--kvm-features", "0x22a2").Fails(6, "PV7008");
    }

    [Fact]
    public void Another_backend_than_the_one_asked_for_is_an_error()
    {
        string core = _guest.Core(_guest.Boot("kvm"));
        ToolResult text = Verify(core, "--backend", "native").Fails(6, "PV7008");
        Assert.Contains("patched for kvm, not for native", text.Out, StringComparison.Ordinal);
        ToolResult json = Verify(core, "--backend", "native", "--json");
        Assert.Equal(6, json.ExitCode);
        Assert.Equal("PV7008", json.Json.GetProperty("diagnostics")[0].GetProperty("code").GetString());
    }

    [Fact]
    public void A_site_tampered_with_is_shown_with_what_stands_there_and_all_that_may()
    {
        // jmp -2; ud2; ud2
        ulong site = _guest.SiteOf("cpu.io_delay");
        string core = _guest.Core(_guest.Boot("kvm", Slide).Put(site, 0xeb, 0xfe, 0x0f, 0x0b, 0x0f, 0x0b));
        ToolResult text = Verify(core).Fails(6, "PV6132");
        Assert.Contains("tampered: 1 site holds", text.Out, StringComparison.Ordinal);
        Assert.Contains($"0x{site:x} cpu.io_delay", text.Out, StringComparison.Ordinal);
        Assert.Matches($"found +eb fe 0f 0b 0f 0b +jmp 0x{site:x}; ud2; ud2\n", text.Out);
        Assert.Matches(@"original +ff 15 .* +call qword \[rel cpu.io_delay\]  \(original\)", text.Out);
        Assert.Matches(@"expected +e8 .* +call kvm_io_delay; nop  \(kvm\)", text.Out);
        ToolResult result = Verify(core, "--json");
        Assert.Equal(6, result.ExitCode);
        Assert.Empty(result.Error);
        Assert.Equal("tampered", result.Json.GetProperty("state").GetString());
        JsonElement found = Assert.Single(result.Json.GetProperty("sites").EnumerateArray());
        Assert.Equal("eb fe 0f 0b 0f 0b", found.GetProperty("found").GetString());
        byte[] call = [0xe8, 0, 0, 0, 0, 0x90];
        BinaryPrimitives.WriteInt32LittleEndian(call.AsSpan(1), (int)(GuestFiles.KvmIoDelay - (site + 5)));
        Assert.Contains(found.GetProperty("allowed").EnumerateArray(),
            a => a.GetProperty("bytes").GetString() == Hex(call) && a.GetProperty("of")[0].GetString() == "kvm");
    }

    [Fact]
    public void Sites_of_two_backends_are_mixed()
    {
        ulong site = _guest.SiteOf("irq.halt");
        byte[] original = _guest.Boot(null).Raw(".text").AsSpan((int)(site - SyntheticKernel.Text), 6).ToArray();
        string core = _guest.Core(_guest.Boot("native").Put(site, original));
        ToolResult text = Verify(core).Fails(6, "PV6136");
        Assert.Contains("mixed: 1 site holds", text.Out, StringComparison.Ordinal);
        Assert.Matches(@"found +ff 15 .*\(original\)", text.Out);
        Assert.Equal("mixed", Verify(core, "--json").Json.GetProperty("state").GetString());
    }

    [Fact]
    public void Memory_from_before_the_patching_has_an_exit_code_of_its_own()
    {
        string core = _guest.Core(_guest.Boot(null, Slide));
        ToolResult text = Verify(core);
        Assert.Equal(7, text.ExitCode);
        Assert.Contains("not patched: every site holds its original bytes", text.Out, StringComparison.Ordinal);
        ToolResult json = Verify(core, "--json");
        Assert.Equal(7, json.ExitCode);
        Assert.Equal("notPatched", json.Json.GetProperty("state").GetString());
    }

    [Fact]
    public void Memory_of_another_kernel_is_an_error_and_not_a_list_of_sites()
    {
        using var other = new GuestFiles(seed: 2);
        string raw = _guest.Write("other", other.Boot("native").Raw(".text"));
        ToolResult result = Verify(raw, "--base", $"{SyntheticKernel.Text:x}").Fails(2, "PV6128");
        Assert.Empty(result.Out);
    }

    [Fact]
    public void Raw_memory_is_compared_as_far_as_it_goes()
    {
        string raw = _guest.Write("raw", _guest.Boot("native", Slide).Raw(".text"));
        ToolResult text = Verify(raw, "--base", $"0x{SyntheticKernel.Text + Slide:x}").Succeeds();
        Assert.Contains("25 of 27 compared, 2 not in the dump", text.Out, StringComparison.Ordinal);
        Assert.Contains("PV6133", text.Error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("native")]
    [InlineData("kvm")]
    public void A_dump_without_sites_that_the_kernel_keeps_is_no_success(string backend)
    {
        // The dump begins within the sites; nothing of what is there was changed.
        byte[] text = _guest.Boot(backend).Raw(".text");
        int start = (int)(_guest.SiteOf("irq.halt") - SyntheticKernel.Text) + 2;
        string[] here = ["--base", $"{SyntheticKernel.Text + (ulong)start:x}"];
        string cut = _guest.Write("cut", text[start..]);
        ToolResult result = Verify(cut, here);
        Assert.Equal(8, result.ExitCode);
        Assert.Matches(@"sites +\d+ of 27 compared, \d+ not in the dump\n", result.Out);
        Assert.Matches(
            @"state +patched for \w+: every site compared holds its bytes; of \d+ that the dump lacks nothing is known\n", result.Out);
        ToolResult json = Verify(cut, [.. here, "--json"]);
        Assert.Equal(8, json.ExitCode);
        Assert.False(json.Json.GetProperty("complete").GetBoolean());
        JsonElement counts = json.Json.GetProperty("counts");
        int compared = counts.GetProperty("compared").GetInt32();
        Assert.InRange(compared, 1, SiteCount - 3); // two of those that are not there lie in sections that are freed
        Assert.Equal(SiteCount - compared, counts.GetProperty("notCompared").GetInt32());
        Assert.Equal(SiteCount - compared - 2, counts.GetProperty("missing").GetInt32());
    }

    [Fact]
    public void A_dump_without_any_site_is_an_error()
    {
        // Enough of the code to know the kernel by, and no site in it.
        const int BehindSites = 0x1400;
        string raw = _guest.Write("raw", _guest.Boot("native").Raw(".text")[BehindSites..]);
        ToolResult result = Verify(raw, "--base", $"{SyntheticKernel.Text + BehindSites:x}").Fails(2, "PV6138");
        Assert.Empty(result.Out);
    }

    [Fact]
    public void Memory_that_cannot_be_read_is_an_error()
    {
        Verify(_guest.Path("missing")).Fails(2, "PV6120");
        Verify(_guest.Write("empty", "")).Fails(2, "PV6124");
        Verify(_guest.Write("text", "This is no core.")).Fails(2, "PV6121");
        Verify(_guest.Vmlinux).Fails(2, "PV6121"); // an ELF file, but no core
        Verify("").Fails(1, "PV7001");
        Verify(_guest.Vmlinux, "--base", "zork").Fails(1, "PV7001");
        ToolRunner.Run("verify", _guest.Vmlinux).Fails(1, "PV7001");
        Verify(_guest.Core(_guest.Boot("native")), "--backend", "zork").Fails(1, "PV6106");
    }

    private ToolResult Verify(string memory, params string[] more) =>
        ToolRunner.Run(["verify", _guest.Vmlinux, "--memory", memory, .. _guest.Map, .. more]);

    private static string Hex(byte[] bytes) => string.Join(' ', bytes.Select(static b => $"{b:x2}"));
}
