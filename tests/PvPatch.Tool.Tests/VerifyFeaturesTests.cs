using System.Text.Json;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

/// <summary>verify, on memory of guests whose KVM host left out features that are usual.</summary>
public sealed class VerifyFeaturesTests : IDisposable
{
    private readonly GuestFiles _guest = new();

    public void Dispose() => _guest.Dispose();

    // Bit 1: no delay after I/O (cpu.io_delay). Bit 5: stolen time (lock.vcpu_is_preempted). Usual hosts offer both.
    [Theory]
    [InlineData("0x2")]
    [InlineData("0x20")]
    public void A_host_that_leaves_features_out_is_found_with_them(string features)
    {
        string core = _guest.Core(Boot(features));

        JsonElement json = ToolRunner.Run(["verify", _guest.Vmlinux, .. _guest.Map, "--memory", core, "--json"]).Succeeds().Json;
        Assert.Equal("patched", json.GetProperty("state").GetString());
        string backend = json.GetProperty("backend").GetString()!;
        Assert.StartsWith("kvm --kvm-features 0x", backend, StringComparison.Ordinal);

        // The name is what asks for just that plan.
        ToolRunner.Run(["verify", _guest.Vmlinux, .. _guest.Map, "--memory", core, "--backend", .. backend.Split(' ')]).Succeeds();
        ToolRunner.Run(["verify", _guest.Vmlinux, .. _guest.Map, "--memory", core, "--backend", "kvm"]).Succeeds();
        ToolRunner.Run(["verify", _guest.Vmlinux, .. _guest.Map, "--memory", core, "--backend", "native"]).Fails(6, "PV7008");
    }

    [Fact]
    public void A_site_tampered_with_is_the_only_one_told()
    {
        // jmp -2; ud2; ud2
        ulong site = _guest.SiteOf("cpu.io_delay");
        string core = _guest.Core(Boot("0x20").Put(site, 0xeb, 0xfe, 0x0f, 0x0b, 0x0f, 0x0b));

        ToolResult result = ToolRunner.Run(["verify", _guest.Vmlinux, .. _guest.Map, "--memory", core, "--json"]);
        Assert.Equal(6, result.ExitCode);
        Assert.Equal("tampered", result.Json.GetProperty("state").GetString());
        JsonElement found = Assert.Single(result.Json.GetProperty("sites").EnumerateArray());
        Assert.Equal($"0x{site:x}", found.GetProperty("address").GetString());
    }

    [Fact]
    public void Features_that_were_given_are_not_guessed_at()
    {
        string core = _guest.Core(Boot("0x2"));
        ToolRunner.Run(["verify", _guest.Vmlinux, .. _guest.Map, "--memory", core, "--kvm-features", "0x22"]).Fails(6, "PV6136");
    }

    private DumpedMachine Boot(string features)
    {
        string output = _guest.Path("booted");
        ToolRunner.Run(["patch", _guest.Vmlinux, .. _guest.Map, "--backend", "kvm", "--kvm-features", features, "-o", output]).Succeeds();
        return new DumpedMachine(File.ReadAllBytes(output));
    }
}
