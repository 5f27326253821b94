using System.Text.Json;
using PvPatch.Linux.Tests.Kernel;
using PvPatch.Tool.Audit;
using PvPatch.Tool.Tests.Support;

namespace PvPatch.Tool.Tests;

public sealed class AuditTests : IDisposable
{
    private const string Slot = "irq.save_fl"; // its convention keeps all but rax
    private const ulong Code = SyntheticKernel.Text + 0x1c00;

    private readonly KernelFiles _files = new();

    public void Dispose() => _files.Dispose();

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    [InlineData((2 * ReadListing.Shown) - 4)]
    [InlineData((2 * ReadListing.Shown) - 3)]
    [InlineData((2 * ReadListing.Shown) - 2)]
    [InlineData(200)]
    public void The_way_to_a_read_is_shown_once_and_the_read_last(int nops)
    {
        ToolResult result = ReadBehind(_files, nops);
        Assert.Equal(6, result.ExitCode);
        JsonElement site = Assert.Single(Sites(result), static s => s.GetProperty("verdict").GetString() == "contradiction");
        Assert.Equal("read", site.GetProperty("cause").GetString());
        Assert.Equal(3, site.GetProperty("use").GetProperty("path").GetArrayLength());

        // jmp; nops, test, jz; mov [rdi], ecx
        string[] lines = [.. site.GetProperty("use").GetProperty("code").EnumerateArray().Select(static l => l.GetString()!)];
        int whole = nops + 4;
        Assert.Equal(whole <= (2 * ReadListing.Shown) + 1 ? whole : (2 * ReadListing.Shown) + 1, lines.Length);
        Assert.Equal(lines.Length, lines.Distinct().Count());
        Assert.Contains(" jmp ", lines[0], StringComparison.Ordinal);
        Assert.Contains(" je ", lines[^2], StringComparison.Ordinal);
        Assert.EndsWith(" mov [rdi],ecx", lines[^1], StringComparison.Ordinal);
        Assert.StartsWith(site.GetProperty("use").GetProperty("address").GetString()!, lines[^1], StringComparison.Ordinal);
        if (whole > (2 * ReadListing.Shown) + 1)
        {
            Assert.Equal($"… {whole - (2 * ReadListing.Shown)} instructions", lines[ReadListing.Shown]);
        }
    }

    [Fact]
    public void A_proved_site_that_breaks_the_convention_has_no_cause()
    {
        JsonElement site = Sites(ReadBehind(_files, 0)).First(static s => s.GetProperty("verdict").GetString() == "proved");
        Assert.Equal("rcx", site.GetProperty("breaks").GetString());
        Assert.False(site.TryGetProperty("cause", out _));
    }

    [Fact]
    public void What_cannot_be_followed_is_undecided_with_its_finding_and_no_difference()
    {
        ToolResult result = NotFollowed(_files).Succeeds();
        JsonElement backend = result.Json.GetProperty("backends")[0];
        Assert.Equal(0, backend.GetProperty("breaksConvention").GetInt32());
        Assert.Equal("notFollowed", backend.GetProperty("causes")[0].GetProperty("cause").GetString());
        JsonElement slot = backend.GetProperty("slots").EnumerateArray().Single(static s => s.TryGetProperty("finding", out _));
        Assert.Equal(Slot, slot.GetProperty("slot").GetString());
        Assert.Equal("-", slot.GetProperty("breaks").GetString());
        Assert.Contains(
            backend.GetProperty("diagnostics").EnumerateArray(), static d => d.GetProperty("code").GetString() == "PV9001");

        ToolResult text = NotFollowed(_files, json: false).Succeeds();
        Assert.Contains($"native: slot {Slot} holds ", text.Out, StringComparison.Ordinal);
        Assert.Contains("warning PV9001", text.Error, StringComparison.Ordinal);
    }

    /// <summary>Audits a kernel in which rcx, which its slot keeps, is destroyed and read behind one site, after some nops.</summary>
    internal static ToolResult ReadBehind(KernelFiles files, int nops)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Put(SyntheticKernel.FunctionOf(Slot), 0xb9, 1, 0, 0, 0, 0xc3); // mov ecx, 1; ret
        kernel.Put(kernel.AddSite(Slot) + 6, 0x31, 0xc9, 0xc3); // xor ecx, ecx; ret
        ulong site = kernel.AddSite(Slot);
        kernel.Put(site + 6, [0xe9, .. BitConverter.GetBytes((int)(Code - (site + 11)))]); // jmp
        // nops; test edi, edi; jz over ud2; ud2; mov [rdi], ecx; ret
        kernel.Put(Code, [.. Enumerable.Repeat((byte)0x90, nops), 0x85, 0xff, 0x74, 2, 0x0f, 0x0b, 0x89, 0x0f, 0xc3]);
        return ToolRunner.Run("audit", files.Write("read", kernel.Build()), "--backend", "native", "--json");
    }

    [Theory]
    [InlineData("plan")]
    [InlineData("patch")]
    public void A_function_that_destroys_more_than_its_slot_lets_it_is_refused_unless_it_is_trusted(string command)
    {
        using var files = new KernelFiles();
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Put(Code, 0x89, 0xf8, 0x31, 0xdb, 0xc3); // mov eax, edi; xor ebx, ebx; ret
        string slots = files.Write("slots.json", $$"""{"{{Slot}}":"0x{{Code:x}}"}""");
        string output = files.Path("out");
        string[] arguments = [command, files.Write("kernel", kernel.Build()), "--backend", "native", "--slots", slots,
            .. command == "patch" ? ["-o", output] : Array.Empty<string>()];

        ToolResult refused = ToolRunner.Run(arguments);
        refused.Fails(3, "PV6171");
        Assert.Matches($"{Slot}(.|\n)*0x{Code + 2:x}(.|\n)*destroys .*rbx(.|\n)*--trust", refused.Error);
        Assert.False(File.Exists(output));

        ToolResult trusted = ToolRunner.Run([.. arguments, "--trust"]).Succeeds();
        Assert.Contains("warning PV6171", trusted.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("--trust", trusted.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void A_function_that_can_not_be_followed_is_planned_with_a_warning()
    {
        using var files = new KernelFiles();
        string slots = files.Write("slots.json", $$"""{"{{Slot}}":"0xffffffff80001000"}""");
        Assert.Contains("warning PV6172",
            ToolRunner.Run("plan", files.Vmlinux, "--backend", "native", "--slots", slots).Succeeds().Error, StringComparison.Ordinal);
    }

    /// <summary>Audits a kernel with a slot that holds the address of code outside the image.</summary>
    internal static ToolResult NotFollowed(KernelFiles files, bool json = true)
    {
        string slots = files.Write("slots.json", $$"""{"{{Slot}}":"0xffffa00000001000"}""");
        string[] arguments = ["audit", files.Vmlinux, "--backend", "native", "--slots", slots];
        return ToolRunner.Run(json ? [.. arguments, "--json"] : arguments);
    }

    private static JsonElement.ArrayEnumerator Sites(ToolResult result) =>
        result.Json.GetProperty("backends")[0].GetProperty("sites").EnumerateArray();
}
