using System.Text.Json;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Memory;

public sealed class AllowedSitesTests
{
    private static readonly DumpedKernel s_kernel = new();

    [Fact]
    public void Each_byte_string_is_listed_once_with_all_it_is_of()
    {
        List<AllowedSite> sites = [.. AllowedSites.Of(KernelVerifierTests.Plans(s_kernel))];

        Assert.Equal(DumpedKernel.SiteCount + DumpedKernel.InitSiteCount, sites.Count);
        Assert.Equal([["original"], ["native", "kvm"], ["xen"]], sites[0].Allowed.Select(a => a.Of));
        Assert.Equal([["original"], ["native", "kvm", "xen"]], sites[1].Allowed.Select(a => a.Of));
        Assert.Equal([0xfa, 0x0f, 0x1f, 0x44, 0x00, 0x00], sites[0].Allowed[1].Bytes.ToArray());
        Assert.Null(sites[0].AbsoluteOperand);
        Assert.All(sites, s => Assert.All(s.Allowed, a => Assert.Equal(s.Length, a.Bytes.Length)));
    }

    [Fact]
    public void Whatever_a_candidate_leaves_in_memory_is_allowed_and_nothing_else()
    {
        List<AllowedSite> sites = [.. AllowedSites.Of([s_kernel.Native, s_kernel.Kvm])];
        for (int i = 0; i < sites.Count; i++)
        {
            Assert.Contains(sites[i].Allowed, a => a.Bytes.Span.SequenceEqual(s_kernel.Native[i].NewBytes));
            Assert.Contains(sites[i].Allowed, a => a.Bytes.Span.SequenceEqual(s_kernel.Kvm[i].NewBytes));
            Assert.Contains(sites[i].Allowed, a => a.Bytes.Span.SequenceEqual(s_kernel.Native[i].OldBytes));
            Assert.InRange(sites[i].Allowed.Count, 2, 3);
        }

        Assert.DoesNotContain(sites[0].Allowed, a => a.Bytes.Span.SequenceEqual(s_kernel.Xen[0].NewBytes));
    }

    [Fact]
    public void Json_has_format_version_and_the_place_of_addresses_that_move()
    {
        var kernel = new DumpedKernel(form: SiteForm.Absolute);
        using JsonDocument document = JsonDocument.Parse(AllowedSites.ToUtf8(KernelVerifierTests.Plans(kernel), indented: true));
        JsonElement root = document.RootElement;

        Assert.Equal("pvpatch-allowed", root.GetProperty("format").GetString());
        Assert.Equal(1, root.GetProperty("version").GetInt32());
        Assert.Equal(
            ["native", "kvm", "xen"], root.GetProperty("plans").EnumerateArray().Select(p => p.GetProperty("backend").GetString()));
        JsonElement site = root.GetProperty("sites")[0];
        Assert.Equal("0xffffffff81000128", site.GetProperty("address").GetString());
        Assert.Equal(".text", site.GetProperty("section").GetString());
        Assert.Equal(7, site.GetProperty("length").GetInt32());
        Assert.Equal("slot0", site.GetProperty("slot").GetString());
        Assert.Equal(3, site.GetProperty("originalAddressAt").GetInt32());

        // call [0xffffffff82800000]
        Assert.Equal("ff 14 25 00 00 80 82", site.GetProperty("allowed")[0].GetProperty("bytes").GetString());
        Assert.Equal("original", site.GetProperty("allowed")[0].GetProperty("of")[0].GetString());
        Assert.Equal("fa 0f 1f 44 00 00 90", site.GetProperty("allowed")[1].GetProperty("bytes").GetString());
    }

    [Fact]
    public void Plans_must_be_given() => Assert.Throws<ArgumentException>(() => AllowedSites.Of([]));

    [Theory]
    [InlineData("ff 14 25 01 02 03 04", 64, 3)]
    [InlineData("ff 24 25 01 02 03 04", 64, 3)]
    [InlineData("50 57 51 52 2e ff 14 25 01 02 03 04 5a 59 5f 58", 64, 8)] // asm sites of 2.6.25 push first
    [InlineData("2e ff 24 25 01 02 03 04", 64, 4)]
    [InlineData("ff 15 01 02 03 04", 64, -1)] // relative to the instruction pointer
    [InlineData("ff 25 01 02 03 04", 64, -1)]
    [InlineData("ff 15 01 02 03 04", 32, 2)]
    [InlineData("ff 25 01 02 03 04", 32, 2)]
    [InlineData("51 52 ff 15 01 02 03 04 5a 59", 32, 4)]
    [InlineData("2e ff 25 01 02 03 04", 32, 3)]
    [InlineData("ff 14 25 01 02 03", 64, -1)]
    [InlineData("ff d0", 32, -1)]
    [InlineData("0f 01 f8", 64, -1)]
    [InlineData("50 51", 64, -1)]
    [InlineData("e8 14 25 01 02 03 04", 64, -1)]
    public void The_absolute_address_of_an_original_is_found(string bytes, int bitness, int at)
    {
        Assert.True(HexBytes.TryParse(bytes, out byte[]? original));
        Assert.Equal(at, SiteFormReader.FindAddress(original, bitness));

        byte[] moved = [.. original];
        SiteFormReader.Relocate(moved, bitness, -0x01000000);
        int[] changed = [.. Enumerable.Range(0, moved.Length).Where(i => moved[i] != original[i])];
        Assert.Equal(at < 0 ? [] : [at + 3], changed);
    }
}
