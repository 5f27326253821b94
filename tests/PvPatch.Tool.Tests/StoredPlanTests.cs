using System.Buffers.Binary;
using System.Text.Json.Nodes;
using PvPatch.Linux.Tests.Kernel;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

/// <summary>A plan file is input like any other: revert writes nothing that the image's own site table does not bear out.</summary>
public sealed class StoredPlanTests : IDisposable
{
    private const string Ud2AndNops = "0f 0b 90 90 90 90";

    private readonly KernelFiles _files = new();
    private readonly string _patched;
    private readonly JsonObject _plan;

    public StoredPlanTests()
    {
        _patched = _files.Path("patched");
        ToolRunner.Run("patch", _files.Vmlinux, "--backend", "native", "-o", _patched, "--save-plan", _files.Path("plan.json")).Succeeds();
        _plan = JsonNode.Parse(File.ReadAllText(_files.Path("plan.json")))!.AsObject();
    }

    private JsonArray Sites => _plan["sites"]!.AsArray();

    public void Dispose() => _files.Dispose();

    [Fact]
    public void The_plan_itself_is_good()
    {
        ToolRunner.Run("revert", _patched, "--plan", Store(), "-o", _files.Path("back")).Succeeds();
        Assert.Equal(_files.Bytes, File.ReadAllBytes(_files.Path("back")));
    }

    [Fact]
    public void A_place_in_no_table_is_refused()
    {
        // int3 between functions becomes something else.
        ulong address = SyntheticKernel.Text + 0x1800;
        JsonObject forged = Site(0).DeepClone().AsObject();
        (forged["address"], forged["old"], forged["new"]) = ($"0x{address:x}", Ud2AndNops, "cc cc cc cc cc cc");
        Sites.Insert(SitesBefore(address), forged);
        Refused($"0x{address:x}");
    }

    [Fact]
    public void A_place_within_a_site_is_refused()
    {
        JsonObject site = Site(3);
        ulong address = Convert.ToUInt64(site["address"]!.GetValue<string>(), 16) + 1;
        (site["address"], site["length"]) = ($"0x{address:x}", 5);
        (site["old"], site["new"]) = (site["old"]!.GetValue<string>()[3..], site["new"]!.GetValue<string>()[3..]);
        Refused(null);
    }

    [Theory]
    [InlineData(Ud2AndNops)] // no call
    [InlineData("e8 00 00 00 00 90")] // a direct call
    [InlineData("ff d0 90 90 90 90")] // call rax
    [InlineData("ff 53 08 90 90 90")] // call [rbx+8]: where it goes, nobody can tell
    [InlineData("64 ff 14 25 00 00")] // cut off
    [InlineData("90 90 90 90 90 90")]
    [InlineData("c3 90 90 90 90 90")]
    public void Foreign_old_bytes_are_refused(string old)
    {
        foreach (int index in (int[])[0, 5, Sites.Count - 1])
        {
            JsonNode before = Site(index).DeepClone();
            Site(index)["old"] = old;
            Refused(Site(index)["address"]!.GetValue<string>());
            Sites[index] = before;
        }
    }

    [Fact]
    public void A_call_through_the_slot_of_another_site_is_refused()
    {
        // ff 15 disp32: the distance from the end of the call to the word of the next slot.
        JsonObject site = Site(0);
        byte[] old = Convert.FromHexString(site["old"]!.GetValue<string>().Replace(" ", "", StringComparison.Ordinal));
        Assert.Equal([0xff, 0x15], old[..2]);
        BinaryPrimitives.WriteInt32LittleEndian(old.AsSpan(2), BinaryPrimitives.ReadInt32LittleEndian(old.AsSpan(2)) + 8);
        site["old"] = string.Join(' ', old.Select(static b => $"{b:x2}"));
        Refused(site["address"]!.GetValue<string>());
    }

    [Theory]
    [InlineData(0)]
    [InlineData(11)]
    [InlineData(26)]
    public void A_site_left_out_is_refused(int index)
    {
        string address = Site(index)["address"]!.GetValue<string>();
        Sites.RemoveAt(index);
        Refused(address);
    }

    [Fact]
    public void A_plan_of_nothing_is_refused()
    {
        Sites.Clear();
        Refused(null);
    }

    [Fact]
    public void A_plan_of_nothing_does_not_make_an_original_of_an_image_that_is_none()
    {
        Sites.Clear();
        string text = _files.Write("text", "no kernel");
        ToolRunner.Run("revert", text, "--plan", Store(), "-o", _files.Path("back")).Fails(2, "PV6001");
        ToolRunner.Run("revert", _files.Vmlinux, "--plan", Store(), "-o", _files.Path("back")).Fails(3, "PV7009");
    }

    [Fact]
    public void A_forged_plan_is_refused_whatever_bytes_of_it_lie()
    {
        int seed = Random.Shared.Next();
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {seed}");
        var random = new Random(seed);
        for (int i = 0; i < 60; i++)
        {
            JsonNode untouched = _plan.DeepClone();
            JsonObject site = Site(random.Next(Sites.Count));
            byte[] old = Convert.FromHexString(site["old"]!.GetValue<string>().Replace(" ", "", StringComparison.Ordinal));
            old[random.Next(old.Length)] ^= (byte)(1 << random.Next(8));
            site["old"] = string.Join(' ', old.Select(static b => $"{b:x2}"));
            ToolResult result = ToolRunner.Run("revert", _patched, "--plan", Store(), "-o", _files.Path("back"));
            Assert.True(result.ExitCode == 3, $"seed {seed}, {i}: exit code {result.ExitCode} with {site}\n{result.Error}");
            Assert.False(File.Exists(_files.Path("back")));
            _plan["sites"] = untouched["sites"]!.DeepClone();
        }
    }

    [Theory]
    [InlineData("native")]
    [InlineData("kvm")]
    public void Plans_of_every_backend_are_good(string backend)
    {
        using var guest = new GuestFiles();
        string patched = guest.Path("guest-patched");
        string plan = guest.Path("guest.json");
        ToolRunner.Run(["patch", guest.Vmlinux, .. guest.Map, "--backend", backend, "--cpus", "2", "-o", patched, "--save-plan", plan])
            .Succeeds();
        ToolRunner.Run("revert", patched, "--plan", plan, "-o", guest.Path("back")).Succeeds();
        Assert.Equal(File.ReadAllBytes(guest.Vmlinux), File.ReadAllBytes(guest.Path("back")));
    }

    private JsonObject Site(int index) => Sites[index]!.AsObject();

    private int SitesBefore(ulong address) => Sites.Count(s => Convert.ToUInt64(s!["address"]!.GetValue<string>(), 16) < address);

    private string Store() => _files.Write("forged.json", _plan.ToJsonString());

    private void Refused(string? address)
    {
        ToolResult result = ToolRunner.Run("revert", _patched, "--plan", Store(), "-o", _files.Path("back")).Fails(3, "PV7009");
        Assert.False(File.Exists(_files.Path("back")));
        Assert.Contains(address ?? "", result.Error, StringComparison.Ordinal);
    }
}
