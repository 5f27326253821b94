using PvPatch.Images;
using PvPatch.Plans;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Properties;

/// <summary>
/// Whatever was applied in between, revert gives the original image back bit for bit; verify says what a comparison of bytes says.
/// </summary>
public sealed class RevertProperties
{
    private const int Cases = 250;

    [Fact]
    public void Reverting_gives_the_original_image() => PropertyCheck.Holds(ScenarioGen.Scenarios, Cases, static scenario =>
    {
        var built = new BuiltScenario(scenario);
        PatchPlan plan = built.Plan(0);
        ApplyResult applied = plan.Apply(built.Image);
        plan.Revert(built.Image).AssertApplied(applied.Written, applied.AlreadyThere);
        Assert.True(built.HoldsOriginals());
        plan.Revert(built.Image).AssertApplied(0, plan.Count);
        Assert.True(built.HoldsOriginals());
    });

    [Fact]
    public void Plans_made_one_from_the_other_keep_the_originals() => PropertyCheck.Holds(ScenarioGen.Scenarios, Cases, static scenario =>
    {
        var built = new BuiltScenario(scenario);
        PatchPlan? previous = null;
        foreach (int backend in (int[])[0, 1, 2, 0, 1])
        {
            PatchPlan plan = built.Plan(backend, previous);
            plan.Apply(built.Image);
            Assert.True(plan.Verify(built.Image).IsPatched);

            // A plan made from another one does at every site what one made from the originals does.
            AssertSameDecisions(new BuiltScenario(scenario).Plan(backend), plan);
            previous = plan;
        }

        previous!.Revert(built.Image);
        Assert.True(built.HoldsOriginals());
    });

    [Fact]
    public void Any_mixture_of_plans_can_be_reverted_and_replanned() => PropertyCheck.Holds(ScenarioGen.Scenarios, Cases, static scenario =>
    {
        var built = new BuiltScenario(scenario);
        var random = new Random(scenario.Seed + 1);
        PatchPlan a = built.Plan(0);
        a.Apply(built.Image);
        PatchPlan b = built.Plan(1, a);
        ApplySome(b, built.Image, random);
        PatchPlan c = built.Plan(2, b);
        ApplySome(c, built.Image, random);
        byte[][] mixed = built.Snapshot();

        c.Revert(built.Image);
        Assert.True(built.HoldsOriginals());

        Restore(built.Image, mixed);
        c.Apply(built.Image);
        Assert.True(c.Verify(built.Image).IsPatched);
        c.Revert(built.Image);
        Assert.True(built.HoldsOriginals());
    });

    [Fact]
    public void Verify_says_what_comparing_bytes_says() => PropertyCheck.Holds(ScenarioGen.Scenarios, Cases, static scenario =>
    {
        var built = new BuiltScenario(scenario);
        var random = new Random(scenario.Seed + 2);
        PatchPlan plan = built.Plan(0);
        ApplySome(plan, built.Image, random);
        for (int i = 0; i < plan.Count; i++)
        {
            if (random.Next(6) == 0 && built.Image.TryGetBytes(plan[i].Address, plan[i].Length, out Span<byte> site))
            {
                site[random.Next(site.Length)] ^= (byte)random.Next(256); // perhaps by nothing
            }
        }

        CodeImage part = new(scenario.Bitness, built.Image.Segments.Where((_, i) => i != 1));
        foreach (CodeImage image in (CodeImage[])[built.Image, part])
        {
            VerifyResult verified = plan.Verify(image);
            (int patched, int original, int outside, var others) = Model(plan, image);
            Assert.Equal((patched, original, outside), (verified.Patched, verified.Original, verified.Outside));
            Assert.Equal(others, verified.Others.Select(o => (o.Decision.Address, HexBytes.Format(o.Found.Span))));
            Assert.Equal(original + outside + others.Count == 0, verified.IsPatched);
            Assert.All(verified.ToDiagnostics(), d => Assert.Equal(DiagnosticCodes.UnexpectedBytes, d.Code));
        }
    });

    private static (int Patched, int Original, int Outside, List<(VirtualAddress, string)> Others) Model(PatchPlan plan, CodeImage image)
    {
        (int patched, int original, int outside) = (0, 0, 0);
        var others = new List<(VirtualAddress, string)>();
        for (int i = 0; i < plan.Count; i++)
        {
            string? there = Read(image, plan[i].Address, plan[i].Length);
            if (there is null)
            {
                outside++;
            }
            else if (there == HexBytes.Format(plan[i].NewBytes))
            {
                patched++;
            }
            else if (there == HexBytes.Format(plan[i].OldBytes))
            {
                original++;
            }
            else
            {
                others.Add((plan[i].Address, there));
            }
        }

        return (patched, original, outside, others);
    }

    private static string? Read(CodeImage image, VirtualAddress address, int length)
    {
        foreach (CodeSegment segment in image.Segments)
        {
            if (address >= segment.Address && address.Value + (ulong)length <= segment.Address.Value + (ulong)segment.Bytes.Length)
            {
                return HexBytes.Format(segment.Bytes.Span.Slice((int)(address - segment.Address), length));
            }
        }

        return null;
    }

    private static void ApplySome(PatchPlan plan, CodeImage image, Random random)
    {
        for (int i = 0; i < plan.Count; i++)
        {
            if (random.Next(2) == 0 && image.TryGetBytes(plan[i].Address, plan[i].Length, out Span<byte> site))
            {
                plan[i].NewBytes.CopyTo(site);
            }
        }
    }

    private static void AssertSameDecisions(PatchPlan fresh, PatchPlan made)
    {
        for (int i = 0; i < fresh.Count; i++)
        {
            if (fresh[i].Action == PatchAction.Thunk)
            {
                continue; // a plan made from another has that one's thunks too, and its own behind them
            }

            SiteDecision same = made[made.IndexContaining(fresh[i].Address)];
            Assert.Equal((fresh[i].Address, fresh[i].Length, fresh[i].Action, fresh[i].Reason),
                (same.Address, same.Length, same.Action, same.Reason));
            Assert.Equal(fresh[i].OldBytes, same.OldBytes);
            if (fresh[i].Action != PatchAction.ThunkCall)
            {
                Assert.Equal(fresh[i].NewBytes, same.NewBytes);
            }
        }
    }

    private static void Restore(CodeImage image, byte[][] bytes)
    {
        for (int i = 0; i < bytes.Length; i++)
        {
            bytes[i].CopyTo(image.Segments[i].Bytes.Span);
        }
    }
}
