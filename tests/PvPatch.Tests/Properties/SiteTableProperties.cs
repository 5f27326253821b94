using FsCheck;
using FsCheck.Fluent;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Tests.Properties;

/// <summary>The checks of a site table against the plain definition, every site held against every other.</summary>
public sealed class SiteTableProperties
{
    private static readonly Arbitrary<PatchSite[]> s_tables = Arb.From(Table(), Shrink);

    [Fact]
    public void A_table_is_made_exactly_where_no_site_is_bad() => PropertyCheck.Holds(s_tables, 2000, static sites =>
    {
        bool sound = Model(sites);
        bool made = SiteTable.TryCreate(sites, out SiteTable? table, out IReadOnlyList<PatchDiagnostic> diagnostics);
        Assert.True(sound == made, $"model {sound}, engine {made}: {string.Join("; ", diagnostics)}");
        Assert.Equal(made, diagnostics.Count == 0);
        if (made)
        {
            Assert.Equal(sites.OrderBy(s => s.Address), table!.Sites.ToArray());
        }
    });

    [Fact]
    public void Findings_name_sites_that_are_bad() => PropertyCheck.Holds(s_tables, 2000, static sites =>
    {
        SiteTable.TryCreate(sites, out _, out IReadOnlyList<PatchDiagnostic> diagnostics);
        foreach (PatchDiagnostic diagnostic in diagnostics)
        {
            PatchSite site = sites[diagnostic.SiteIndex!.Value];
            Assert.Equal(site.Address, diagnostic.Address);
            Assert.True(diagnostic.Code switch
            {
                DiagnosticCodes.SiteZeroLength => site.Budget == 0,
                DiagnosticCodes.SiteTooLong => site.Budget == 255,
                DiagnosticCodes.SiteWraps => Wraps(site),
                DiagnosticCodes.SiteDuplicate => sites.Count(s => s.Address == site.Address) > 1,
                DiagnosticCodes.SiteOverlap => sites.Any(s => s.Address != site.Address && Overlap(s, site)),
                _ => false,
            }, diagnostic.ToString());
        }
    });

    [Fact]
    public void A_byte_is_found_in_the_site_that_has_it() => PropertyCheck.Holds(s_tables, 1000, static sites =>
    {
        if (!SiteTable.TryCreate(sites, out SiteTable? table, out _))
        {
            return;
        }

        foreach (ulong from in sites.Select(s => s.Address.Value).Distinct())
        {
            for (ulong address = unchecked(from - 2); address != unchecked(from + 12); address++)
            {
                int[] having = [
                    .. Enumerable.Range(0, table.Count).Where(i => unchecked(address - table[i].Address.Value) < (ulong)table[i].Budget)];
                Assert.Equal(having.Length == 0 ? -1 : having.Single(), table.IndexContaining(address));
                Assert.Equal(having.Length == 0 || table[having[0]].Address != address ? -1 : having[0], table.IndexOf(address));
            }
        }
    });

    private static bool Model(PatchSite[] sites)
    {
        for (int i = 0; i < sites.Length; i++)
        {
            if (sites[i].Budget is 0 or 255 || Wraps(sites[i]))
            {
                return false;
            }

            for (int j = 0; j < sites.Length; j++)
            {
                if (i != j && Overlap(sites[i], sites[j]))
                {
                    return false;
                }
            }
        }

        return true;
    }

    private static bool Wraps(PatchSite site) => (UInt128)site.Address.Value + (UInt128)site.Budget > (UInt128)ulong.MaxValue + 1;

    private static bool Overlap(PatchSite a, PatchSite b)
    {
        (UInt128 startA, UInt128 startB) = (a.Address.Value, b.Address.Value);
        return startA == startB || (startA < startB + (UInt128)b.Budget && startB < startA + (UInt128)a.Budget);
    }

    private static Gen<PatchSite[]> Table() =>
        from start in Gen.Elements(0UL, 0x1000UL, 0xffffffff81000000, ulong.MaxValue - 30)
        from spread in Gen.Elements(40, 200, 2000)
        from sites in Site(start, spread).ArrayOf()
        select sites;

    private static Gen<PatchSite> Site(ulong start, int spread) =>
        from offset in Gen.Choose(0, spread)
        from budget in Gen.Frequency((12, Gen.Choose(1, 8)), (3, Gen.Choose(1, 40)), (1, Gen.Elements(0, 254, 255)))
        from slot in Gen.Choose(0, 3)
        select new PatchSite(unchecked(start + (ulong)offset), slot, budget, RegisterSet.None);

    private static IEnumerable<PatchSite[]> Shrink(PatchSite[] sites) =>
        Enumerable.Range(0, sites.Length).Select(i => sites.Where((_, index) => index != i).ToArray());
}
