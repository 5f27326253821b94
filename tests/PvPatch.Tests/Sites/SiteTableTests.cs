using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Tests.Sites;

/// <summary>Each finding about a site table, with its place and what was found and expected.</summary>
public sealed class SiteTableTests
{
    [Fact]
    public void PV1001_a_site_without_length()
    {
        PatchDiagnostic found = Assert.Single(Refused(Site(0x1000, 0)));
        Assert.Equal((DiagnosticCodes.SiteZeroLength, 0, new VirtualAddress(0x1000)), (found.Code, found.SiteIndex, found.Address));
        Assert.Equal("1 to 254 bytes", found.Expected);
    }

    [Fact]
    public void PV1002_a_site_longer_than_a_site_may_be()
    {
        PatchDiagnostic found = Assert.Single(Refused(Site(0x1000, 4), Site(0x2000, 255)));
        Assert.Equal((DiagnosticCodes.SiteTooLong, 1, new VirtualAddress(0x2000)), (found.Code, found.SiteIndex, found.Address));
        Assert.Equal(("255 bytes", "1 to 254 bytes"), (found.Found, found.Expected));
        Assert.Single(SiteTable.Create(Site(0x2000, 254)));
    }

    [Fact]
    public void PV1003_two_sites_at_one_address_by_their_places_in_the_input()
    {
        PatchDiagnostic found = Assert.Single(Refused(Site(0x2000, 4, 1), Site(0x1000, 4), Site(0x2000, 4, 2)));
        Assert.Equal((DiagnosticCodes.SiteDuplicate, new VirtualAddress(0x2000)), (found.Code, found.Address));
        Assert.Contains(found.SiteIndex!.Value, (int[])[0, 2]);
        Assert.Contains($"site {2 - found.SiteIndex}", found.Message, StringComparison.Ordinal);
        Assert.Contains("slots ", found.Found, StringComparison.Ordinal);
        Assert.NotNull(found.Expected);
    }

    [Fact]
    public void PV1004_two_sites_that_share_a_byte()
    {
        PatchDiagnostic found = Assert.Single(Refused(Site(0x1004, 4), Site(0x1000, 5)));
        Assert.Equal((DiagnosticCodes.SiteOverlap, 0, new VirtualAddress(0x1004)), (found.Code, found.SiteIndex, found.Address));
        Assert.Equal("0x00001000+5 and 0x00001004+4", found.Found);
        Assert.NotNull(found.Expected);
    }

    [Fact]
    public void PV1008_a_site_over_the_end_of_the_address_space()
    {
        PatchDiagnostic found = Assert.Single(Refused(Site(ulong.MaxValue - 3, 5)));
        Assert.Equal((DiagnosticCodes.SiteWraps, 0, new VirtualAddress(ulong.MaxValue - 3)), (found.Code, found.SiteIndex, found.Address));
        Assert.Single(SiteTable.Create(Site(ulong.MaxValue - 3, 4)));
    }

    [Fact]
    public void The_throwing_form_throws_the_first_finding()
    {
        PatchException error = Assert.Throws<PatchException>(() => SiteTable.Create(Site(0x1000, 0), Site(0x1000, 4)));
        Assert.Equal(DiagnosticCodes.SiteZeroLength, error.Diagnostic.Code);
        Assert.Contains("PV1001", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_million_bad_sites_give_a_short_report()
    {
        PatchSite[] sites = new PatchSite[1_000_000];
        Array.Fill(sites, Site(0x1000, 0));
        IReadOnlyList<PatchDiagnostic> found = Refused(sites);
        Assert.Equal(101, found.Count);
    }

    [Fact]
    public void A_site_is_sixteen_bytes_and_keeps_what_it_was_given()
    {
        Assert.Equal(16, System.Runtime.CompilerServices.Unsafe.SizeOf<PatchSite>());
        var site = new PatchSite(ulong.MaxValue, ushort.MaxValue, 255, RegisterSet.All, SiteTraits.NoStack);
        Assert.Equal((ulong.MaxValue, ushort.MaxValue, 255, RegisterSet.All, SiteTraits.NoStack),
            (site.Address.Value, site.Slot, site.Budget, site.Clobbers, site.Traits));
        Assert.Throws<ArgumentOutOfRangeException>(() => new PatchSite(0, -1, 1, default));
        Assert.Throws<ArgumentOutOfRangeException>(() => new PatchSite(0, 65536, 1, default));
        Assert.Throws<ArgumentOutOfRangeException>(() => new PatchSite(0, 0, 256, default));
        Assert.Throws<ArgumentOutOfRangeException>(() => new PatchSite(0, 0, -1, default));
    }

    private static PatchSite Site(ulong address, int budget, int slot = 0) => new(address, slot, budget, RegisterSet.None);

    private static IReadOnlyList<PatchDiagnostic> Refused(params PatchSite[] sites)
    {
        Assert.False(SiteTable.TryCreate(sites, out SiteTable? table, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Null(table);
        Assert.All(diagnostics.Where(d => d.Severity != DiagnosticSeverity.Info), d => Assert.Equal(DiagnosticSeverity.Error, d.Severity));
        return diagnostics;
    }
}
