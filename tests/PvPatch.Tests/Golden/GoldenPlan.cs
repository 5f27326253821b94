using PvPatch.Images;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Golden;

/// <summary>
/// Rows of <c>decisions.txt</c> that stand in one image and one plan: same rules, bitness and nops, and no slot with two operations.
/// </summary>
internal sealed class GoldenPlan
{
    private const int RoomLength = 256;
    private readonly List<GoldenDecision> _rows = [];
    private readonly Dictionary<string, string> _operations = [];

    public IReadOnlyList<GoldenDecision> Rows => _rows;

    private GoldenDecision First => _rows[0];

    /// <summary>Sorts rows into as few plans as their operations allow.</summary>
    public static IReadOnlyList<GoldenPlan> Gather(IEnumerable<GoldenDecision> rows)
    {
        var plans = new List<GoldenPlan>();
        foreach (IGrouping<string, GoldenDecision> group in rows.GroupBy(row => row.PlanKey))
        {
            var ofGroup = new List<GoldenPlan>();
            foreach (GoldenDecision row in group)
            {
                if (!ofGroup.Exists(plan => plan.TryAdd(row)))
                {
                    var fresh = new GoldenPlan();
                    fresh.TryAdd(row);
                    ofGroup.Add(fresh);
                }
            }

            plans.AddRange(ofGroup);
        }

        return plans;
    }

    public bool TryPlan(out PatchPlan? plan, out CodeImage image, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        GoldenDecision[] slots = [.. _rows.DistinctBy(row => row.Slot)];
        OpsLayout layout = OpsLayout.Create(b =>
        {
            foreach (IGrouping<string, GoldenDecision> table in slots.GroupBy(row => row.Slot.Split('.')[0]))
            {
                b.Table(table.Key, t =>
                {
                    foreach (GoldenDecision row in table)
                    {
                        t.Slot(row.Slot.Split('.')[1], row.Kind, row.Convention);
                    }
                });
            }
        });
        Backend backend = Backend.Create("golden", layout, b =>
        {
            foreach (GoldenDecision row in slots)
            {
                b.Set(row.Slot, row.Operation);
            }
        });
        SiteTable sites = SiteTable.Create([.. _rows.Select(row => row.Site(layout[row.Slot].Index))]);
        image = Image();
        var options = new PlanOptions
        {
            Rules = First.Rules,
            Nops = First.Nops,
            BugTarget = First.Bug,
            Thunks = First.Room is VirtualAddress room ? new AddressRange(room, RoomLength) : null,
        };
        return new PatchPlanner().TryPlan(image, sites, backend, options, out plan, out diagnostics);
    }

    private bool TryAdd(GoldenDecision row)
    {
        // The operation's words and target make it one operation; an operation that differs in either needs a plan of its own, and
        // so does one whose body was moved to the row's own address.
        string operation = $"{row.Row["operation"]} {row.Row["target"]} {row.Kind}";
        if (_operations.TryGetValue(row.Slot, out string? known) && known != operation)
        {
            return false;
        }

        _operations[row.Slot] = operation;
        _rows.Add(row);
        return true;
    }

    /// <summary>Segments of int3 with the original bytes in them; each ends with the last site in it.</summary>
    private CodeImage Image()
    {
        var segments = new List<CodeSegment>();
        var near = new List<GoldenDecision>();
        foreach (GoldenDecision row in _rows.OrderBy(row => row.Address))
        {
            if (near.Count > 0 && row.Address.Value - near[^1].Address.Value > 0x1000)
            {
                segments.Add(Segment(near));
                near.Clear();
            }

            near.Add(row);
        }

        segments.Add(Segment(near));
        if (First.Room is VirtualAddress room)
        {
            segments.Add(new CodeSegment("room", room, new byte[RoomLength]));
        }

        return new CodeImage(First.Bits, segments);
    }

    private static CodeSegment Segment(List<GoldenDecision> rows)
    {
        VirtualAddress start = rows[0].Address;
        byte[] bytes = new byte[rows[^1].Address - start + rows[^1].Original.Length];
        bytes.AsSpan().Fill(0xcc);
        foreach (GoldenDecision row in rows)
        {
            row.Original.CopyTo(bytes, row.Address - start);
        }

        return new CodeSegment("text", start, bytes);
    }
}
