using PvPatch.Images;

namespace PvPatch.Records;

/// <summary>
/// Joins the records of multiway branches: one for each way of a site, in any order. All of a site must have the same number of ways, name
/// and key, and each way must be there once.
/// </summary>
internal sealed class RecordedWays
{
    private readonly List<Way> _ways = [];

    /// <summary>Adds a record.</summary>
    /// <param name="index">Its number in the table.</param>
    /// <param name="name">The name of its branch.</param>
    /// <param name="fields">Its fields, each sound in itself.</param>
    /// <param name="isInitial">Whether the site was laid down for this way.</param>
    public void Add(int index, string? name, RecordFields fields, bool isInitial) => _ways.Add(new Way(
        fields.Site, fields.SiteLength, fields.Number, fields.Value, fields.Target.IsZero ? null : fields.Target, name, fields.Key,
        isInitial, index));

    /// <summary>The sites, in order of address. Reports PV1015, and leaves out what it reports.</summary>
    /// <param name="table">The table.</param>
    /// <param name="found">Where findings go.</param>
    public IEnumerable<MultiBranchRecord> Join(CodeSegment table, DiagnosticList found)
    {
        var sites = new List<MultiBranchRecord>();
        foreach (IGrouping<(VirtualAddress, int), Way> site in _ways.GroupBy(static w => (w.Site, w.Length)))
        {
            Way[] ways = [.. site.OrderBy(static w => w.Number).ThenBy(static w => w.Index)];
            Way first = ways[0];
            Way? other = Array.Find(ways, w => (w.Count, w.Name, w.Key) != (first.Count, first.Name, first.Key));
            int sound = 0;
            while (sound < ways.Length && ways[sound].Number == sound)
            {
                sound++; // the next is there twice, or the one before it is not
            }

            if (other is not null)
            {
                Report(
                    other, "is of another branch than the others of its site", $"{other.Name}, {other.Count} ways",
                    $"{first.Name}, {first.Count} ways");
            }
            else if (sound != ways.Length || sound != first.Count)
            {
                Way last = ways[Math.Min(sound, ways.Length - 1)];
                Report(
                    last, "is of a site whose ways are not there once each", $"way {last.Number}, {ways.Length} records",
                    $"ways 0 to {first.Count - 1}");
            }
            else if (ways.Count(static w => w.IsInitial) > 1)
            {
                Report(ways.Last(static w => w.IsInitial), "is of a site that was laid down for several ways", "two", "one or none");
            }
            else
            {
                Way? initial = Array.Find(ways, static w => w.IsInitial);
                sites.Add(new MultiBranchRecord
                {
                    Address = first.Site,
                    Length = first.Length,
                    Labels = Array.AsReadOnly(Array.ConvertAll(ways, static w => w.Label)),
                    Branch = first.Name,
                    KeyAddress = first.Key.IsZero ? null : first.Key,
                    InitialWay = initial?.Number,
                });
            }
        }

        return sites.OrderBy(static s => s.Address);

        void Report(Way way, string what, string isNow, string expected) =>
            found.Add(PatchDiagnostic.Error(DiagnosticCodes.RecordSlot, $"the record {what}") with
            {
                Source = table.Name,
                SiteIndex = way.Index,
                Address = table.Address + way.Index * (long)RecordFields.Length,
                Found = isNow,
                Expected = expected,
            });
    }

    private sealed record Way(
        VirtualAddress Site, int Length, int Number, uint Count, VirtualAddress? Label, string? Name, VirtualAddress Key, bool IsInitial,
        int Index);
}
