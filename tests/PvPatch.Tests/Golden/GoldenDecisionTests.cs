using PvPatch.Images;
using PvPatch.Plans;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Golden;

/// <summary>
/// Every row of <c>decisions.txt</c> against the engine: bytes, action and reason; then the bytes once more by a second reader.
/// </summary>
public sealed class GoldenDecisionTests
{
    private static readonly IReadOnlyList<GoldenPlan> s_plans = Load();

    [Fact]
    public void The_engine_decides_every_row_as_the_table_says()
    {
        var wrong = new List<string>();
        int compared = 0;
        foreach (GoldenPlan golden in s_plans.Where(p => !p.Rows[0].IsStop))
        {
            if (!golden.TryPlan(out PatchPlan? plan, out _, out IReadOnlyList<PatchDiagnostic> diagnostics))
            {
                wrong.Add($"{golden.Rows[0]}: no plan: {diagnostics[0]}");
                continue;
            }

            foreach (GoldenDecision row in golden.Rows)
            {
                SiteDecision site = plan![plan.IndexContaining(row.Address)];
                compared++;
                if (site.Action != row.Action || site.Reason != row.Reason || !site.NewBytes.SequenceEqual(row.Expected)
                    || !site.OldBytes.SequenceEqual(row.Original))
                {
                    wrong.Add($"{row}{Environment.NewLine}    engine: {site}");
                }
            }
        }

        Assert.True(wrong.Count == 0, $"{wrong.Count} of {compared} rows:{Environment.NewLine}{string.Join(Environment.NewLine, wrong)}");
        Assert.True(compared > 730, $"only {compared} rows were compared");
    }

    [Fact]
    public void Where_the_kernel_would_stop_there_is_no_plan()
    {
        GoldenPlan[] stops = [.. s_plans.Where(p => p.Rows[0].IsStop)];
        Assert.Equal(4, stops.Length);
        foreach (GoldenPlan golden in stops)
        {
            GoldenDecision row = Assert.Single(golden.Rows);
            Assert.False(golden.TryPlan(out PatchPlan? plan, out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
            Assert.Null(plan);
            PatchDiagnostic diagnostic = Assert.Single(diagnostics);
            Assert.Equal(DiagnosticCodes.KernelWouldStop, diagnostic.Code);
            Assert.Equal(row.Address, diagnostic.Address);
            Assert.Equal("a site of 2 bytes", diagnostic.Found);
        }
    }

    [Fact]
    public void Applied_plans_hold_the_tables_bytes_and_reverting_gives_the_originals()
    {
        foreach (GoldenPlan golden in s_plans.Where(p => !p.Rows[0].IsStop))
        {
            Assert.True(golden.TryPlan(out PatchPlan? plan, out CodeImage image, out _));
            byte[][] before = [.. image.Segments.Select(s => s.Bytes.ToArray())];
            plan!.Apply(image);
            foreach (GoldenDecision row in golden.Rows)
            {
                Assert.True(image.TryGetBytes(row.Address, row.Expected.Length, out Span<byte> there));
                Assert.True(there.SequenceEqual(row.Expected), row.ToString());
            }

            Assert.True(plan.Verify(image).IsPatched);
            plan.Revert(image);
            Assert.Equal(before, image.Segments.Select(s => s.Bytes.ToArray()));
        }
    }

    [Fact]
    public void Capstone_reads_whole_instructions_wherever_the_engine_wrote()
    {
        int thunks = 0;
        foreach (GoldenPlan golden in s_plans.Where(p => !p.Rows[0].IsStop))
        {
            Assert.True(golden.TryPlan(out PatchPlan? plan, out _, out _));
            for (int i = 0; i < plan!.Count; i++)
            {
                CapstoneReader.AssertWholeInstructions(plan[i].NewBytes, plan[i].Address.Value, plan.Bitness, plan[i].ToString());
                thunks += plan[i].Action == PatchAction.Thunk ? 1 : 0;
            }
        }

        Assert.Equal(3, thunks);
    }

    private static IReadOnlyList<GoldenPlan> Load()
    {
        GoldenTable bodies = GoldenTable.Load("bodies.txt");
        return GoldenPlan.Gather(GoldenTable.Load("decisions.txt").Rows.Select(row => new GoldenDecision(row, bodies)));
    }
}
