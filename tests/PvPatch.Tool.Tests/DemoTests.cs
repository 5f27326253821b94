using System.Text.Json;
using Iced.Intel;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

public sealed class DemoTests
{
    [Theory]
    [InlineData(64, new[] { "native", "xen", "kvm" })]
    [InlineData(32, new[] { "native", "xen", "kvm", "lguest", "vmi" })]
    public void Every_backend_is_applied_verified_and_reverted(int bits, string[] backends)
    {
        JsonElement document = ToolRunner.Run("demo", "--bits", $"{bits}", "--json").Succeeds().Json;
        Assert.Equal("pvpatch-demo", document.GetProperty("format").GetString());
        JsonElement demo = Assert.Single(document.GetProperty("guests").EnumerateArray());
        Assert.Equal(backends, demo.GetProperty("backends").EnumerateArray().Select(static b => b.GetProperty("backend").GetString()!));
        foreach (JsonElement backend in demo.GetProperty("backends").EnumerateArray())
        {
            Assert.True(backend.GetProperty("written").GetInt32() > 15);
            Assert.True(backend.GetProperty("verified").GetBoolean());
            Assert.True(backend.GetProperty("outsideUntouched").GetBoolean());
            Assert.Equal(0, backend.GetProperty("writtenAgain").GetInt32());
            Assert.True(backend.GetProperty("restored").GetBoolean());
        }
    }

    [Theory]
    [InlineData(32)]
    [InlineData(64)]
    public void Sites_have_every_length_from_5_to_16_bytes_and_different_clobbers(int bits)
    {
        JsonElement[] sites = [.. Sites(bits, "native").Where(static s => s.GetProperty("action").GetString() != "thunk")];
        Assert.Equal(Enumerable.Range(5, 12), sites.Select(static s => s.GetProperty("length").GetInt32()).Distinct().Order());
        Assert.True(sites.Select(static s => s.GetProperty("clobbers").GetString()).Distinct().Count() >= 3);
    }

    [Theory]
    [InlineData(32)]
    [InlineData(64)]
    public void What_stands_at_a_site_is_whole_instructions_of_exactly_its_length(int bits)
    {
        JsonElement demo = ToolRunner.Run("demo", "--bits", $"{bits}", "--json").Json.GetProperty("guests")[0];
        byte[] code = Convert.FromHexString(demo.GetProperty("code").GetString()!.Replace(" ", "", StringComparison.Ordinal));
        ulong start = Address(demo, "address");
        foreach (JsonElement backend in demo.GetProperty("backends").EnumerateArray())
        {
            foreach (JsonElement site in backend.GetProperty("plan").GetProperty("sites").EnumerateArray())
            {
                byte[] old = Bytes(site, "old");
                byte[] @new = Bytes(site, "new");
                Assert.Equal(site.GetProperty("length").GetInt32(), @new.Length);
                Assert.Equal(code[(int)(Address(site, "address") - start)..][..old.Length], old);
                var decoder = Decoder.Create(bits, @new);
                while (decoder.IP < (ulong)@new.Length)
                {
                    decoder.Decode(out Instruction instruction);
                    Assert.False(instruction.IsInvalid, site.ToString());
                }

                Assert.Equal((ulong)@new.Length, decoder.IP);
            }
        }
    }

    [Fact]
    public void The_64_bit_guest_shows_every_kind_of_decision()
    {
        JsonElement[] sites = [.. Sites(64, "native"), .. Sites(64, "xen"), .. Sites(64, "kvm")];
        Assert.Superset(
            new HashSet<string> { "inline", "call", "jump", "nop", "identity", "thunkCall", "thunk", "trap", "leaveAlone" },
            sites.Select(static s => s.GetProperty("action").GetString()!).ToHashSet());
        Assert.Superset(
            new HashSet<string> { "clobbersTooMuch", "outOfReach", "notACall", "needsStack" },
            sites.Select(static s => s.GetProperty("reason").GetString()!).ToHashSet());
    }

    [Fact]
    public void Bodies_are_those_of_the_processor_manuals()
    {
        JsonElement[] native = Sites(64, "native");
        Assert.Equal("fa 0f 1f 40 00", New(native, "irq.irq_disable", 5)); // cli and a nop of 4
        Assert.Equal("fb 0f 1f 44 00 00", New(native, "irq.irq_enable", 6)); // sti and a nop of 5
        Assert.Equal("9c 58 0f 1f 44 00 00", New(native, "irq.save_fl", 7)); // pushfq; pop rax; nop of 5
        Assert.Equal("48 89 f8 0f 1f 00", New(native, "mmu.pte_val", 6)); // mov rax,rdi; nop of 3
        Assert.Equal("0f 01 f8 48 0f 07 90", New(native, "cpu.usergs_sysret64", 7)); // swapgs; sysretq; nop
        Assert.Equal("65 c6 04 25 01 b1 00 00 01 90", New(Sites(64, "xen"), "irq.irq_disable", 10)); // mov byte gs:[b101],1; nop
    }

    [Theory]
    [InlineData("64")]
    [InlineData("32")]
    public void The_text_fits_120_columns_and_names_every_slot_backend_and_reason(string bits)
    {
        ToolResult demo = ToolRunner.Run("demo", "--bits", bits).Succeeds();
        Assert.Equal("", demo.Error);
        Assert.All(demo.Out.Split('\n'), static line => Assert.True(line.Length <= 120, line));
        Assert.All(demo.Out.Split('\n'), static line => Assert.Equal(line.TrimEnd(), line));
        Assert.DoesNotContain("NOT TRUE", demo.Out, StringComparison.Ordinal);
        foreach (string expected in (string[])[
            "irq.irq_disable", "native", "xen", "kvm", "NeedsStack", "ClobbersTooMuch", "reverted bit for bit", "cli; nop(4)"])
        {
            Assert.Contains(expected, demo.Out, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void At_first_sight_there_are_both_guests_and_the_four_hypervisors()
    {
        ToolResult demo = ToolRunner.Run("demo").Succeeds();
        Assert.StartsWith(
            "Guests and their backends: 64 bits: native, xen, kvm; 32 bits: native, xen, kvm, lguest, vmi\n", demo.Out,
            StringComparison.Ordinal);
        Assert.Contains("A 64-bit guest of ", demo.Out, StringComparison.Ordinal);
        Assert.Contains("A 32-bit guest of ", demo.Out, StringComparison.Ordinal);
        Assert.Equal(3 + 5, demo.Out.Split("reverted bit for bit").Length - 1); // a line of checks for each
        Assert.Equal(2, demo.Out.Split("Below, each site").Length); // what words mean is said once
        Assert.All(demo.Out.Split('\n'), static line => Assert.True(line.Length <= 120, line));
        Assert.DoesNotContain("NOT TRUE", demo.Out, StringComparison.Ordinal);
    }

    [Fact]
    public void The_document_has_both_guests_too()
    {
        JsonElement.ArrayEnumerator guests = ToolRunner.Run("demo", "--json").Succeeds().Json.GetProperty("guests").EnumerateArray();
        Assert.Equal([64, 32], guests.Select(static g => g.GetProperty("bitness").GetInt32()));
        Assert.Equal([3, 5], guests.Select(static g => g.GetProperty("backends").GetArrayLength()));
    }

    [Theory]
    [InlineData("lguest")]
    [InlineData("vmi")]
    public void A_backend_of_one_guest_is_shown_of_that_one(string backend)
    {
        string text = ToolRunner.Run("demo", "--backend", backend).Succeeds().Out;
        Assert.StartsWith($"Guests and their backends: 32 bits: {backend}\n", text, StringComparison.Ordinal);
        Assert.DoesNotContain("64-bit", text, StringComparison.Ordinal);
        ToolRunner.Run("demo", "--bits", "64", "--backend", backend).Fails(1, "PV2002");
    }

    [Fact]
    public void One_backend_can_be_chosen()
    {
        string text = ToolRunner.Run("demo", "--backend", "xen").Succeeds().Out;
        Assert.Contains("    xen ", text, StringComparison.Ordinal);
        Assert.DoesNotContain("    kvm ", text, StringComparison.Ordinal);
    }

    [Fact]
    public void A_backend_that_does_not_exist_is_an_error_with_a_suggestion() =>
        Assert.Contains(
            "Did you mean \"xen\"?", ToolRunner.Run("demo", "--backend", "xem").Fails(1, "PV2002").Error, StringComparison.Ordinal);

    [Fact]
    public void A_bitness_there_is_not_is_an_error() => ToolRunner.Run("demo", "--bits", "16").Fails(1, "PV7001");

    private static JsonElement[] Sites(int bits, string backend) =>
        [.. ToolRunner.Run("demo", "--bits", $"{bits}", "--backend", backend, "--json").Succeeds().Json
            .GetProperty("guests")[0].GetProperty("backends")[0].GetProperty("plan").GetProperty("sites").EnumerateArray()];

    private static string New(JsonElement[] sites, string slot, int length) =>
        sites.First(s => s.GetProperty("slot").GetString() == slot && s.GetProperty("length").GetInt32() == length).GetProperty("new")
            .GetString()!;

    private static byte[] Bytes(JsonElement site, string name) =>
        Convert.FromHexString(site.GetProperty(name).GetString()!.Replace(" ", "", StringComparison.Ordinal));

    private static ulong Address(JsonElement element, string name) => Convert.ToUInt64(element.GetProperty(name).GetString(), 16);
}
