using System.Text.Json;
using PvPatch.Linux;
using PvPatch.Linux.Dumps;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Verify;
using PvPatch.Paravirt;
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

    [Fact]
    public void Machines_that_were_left_out_are_counted_with_the_facts_that_would_narrow_them_down()
    {
        KernelImage image = KernelImage.Open(
            _guest.Vmlinux, new KernelOptions { Symbols = KernelSymbols.ReadSystemMap(File.ReadAllBytes(_guest.SystemMap)) });
        Assert.True(BootCandidates.TryCreate(
            image, out BootCandidates? all, out IReadOnlyList<PatchDiagnostic> none, null, ["native", "kvm"], null, 64));
        Assert.Empty(none);
        Assert.Equal(0, all.NotPlanned);

        Assert.True(BootCandidates.TryCreate(
            image, out BootCandidates? cut, out IReadOnlyList<PatchDiagnostic> told, null, ["native", "kvm"], null, 2));
        Assert.Equal(2, cut.Count);
        Assert.True(cut.NotPlanned >= all.Count - 2);
        PatchDiagnostic warning = Assert.Single(told);
        Assert.Equal(("PV6148", DiagnosticSeverity.Warning), (warning.Code, warning.Severity));
        Assert.Contains($"{cut.NotPlanned} more settings", warning.Found, StringComparison.Ordinal);
        Assert.Contains("the KVM features", warning.Help, StringComparison.Ordinal);
        Assert.DoesNotContain("VMware", warning.Help, StringComparison.Ordinal);

        // What is known leaves nothing open; and a verdict has the warning.
        var known = new KnownMachine { KvmFeatures = KvmFeatures.Usual, Cpus = 1, HasMwait = true, HasLkgs = true, NoPvSpin = true };
        Assert.True(BootCandidates.TryCreate(image, out _, out none, known, ["native", "kvm"], null, 2));
        Assert.Empty(none);
        using MemoryFile memory = MemoryFile.Open(_guest.Core(_guest.Boot("native")));
        Assert.True(KernelMemoryLocator.TryLocate(image.Elf, memory, out KernelMemory? found, out _));
        MemoryVerification verdict = KernelVerifier.Compare(cut, found, told);
        Assert.Contains(verdict.ToDiagnostics(), static d => d.Code == "PV6148");
    }

    private DumpedMachine Boot(string features)
    {
        string output = _guest.Path("booted");
        ToolRunner.Run(["patch", _guest.Vmlinux, .. _guest.Map, "--backend", "kvm", "--kvm-features", features, "-o", output]).Succeeds();
        return new DumpedMachine(File.ReadAllBytes(output));
    }
}
