using System.Text.Json.Nodes;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Properties;
using PvPatch.Tests.Shared;

namespace PvPatch.Tests.Planning;

/// <summary>A stored plan is the plan; a text that is none is refused with a finding, whatever it is.</summary>
public sealed class PlanJsonTests
{
    private static PlanOutcome Nop => new() { Label = "x", Action = PatchAction.Nop };

    [Fact]
    public void A_stored_plan_reads_back_and_does_the_same() => PropertyCheck.Holds(ScenarioGen.Scenarios, 150, static scenario =>
    {
        var built = new BuiltScenario(scenario);
        PatchPlan first = built.Plan(0);
        first.Apply(built.Image);
        PatchPlan plan = built.Plan(1, first);
        byte[] json = PlanJson.ToUtf8(plan);
        PatchPlan read = PlanJson.Read(json);
        Assert.Equal(json, PlanJson.ToUtf8(read));
        Assert.Equal(plan.Summary.ToString(), read.Summary.ToString());
        Assert.Equal(plan.Count, read.Count);
        for (int i = 0; i < plan.Count; i++)
        {
            Assert.Equal((plan[i].Address, plan[i].Outcome), (read[i].Address, read[i].Outcome));
            Assert.Equal(plan[i].OldBytes, read[i].OldBytes);
            Assert.Equal(plan[i].NewBytes, read[i].NewBytes);
        }

        // The image holds the first plan's bytes: the stored plan knows them too.
        read.Apply(built.Image);
        Assert.True(plan.Verify(built.Image).IsPatched);
        read.Revert(built.Image);
        Assert.True(built.HoldsOriginals());
    });

    [Fact]
    public void Indented_or_not_is_the_same_plan()
    {
        PatchPlan plan = new PlanCases(3).Plan(Operation.Call(PlanCases.Target));
        Assert.Equal(PlanJson.ToUtf8(plan), PlanJson.ToUtf8(PlanJson.Read(PlanJson.ToUtf8(plan, indented: true))));
    }

    [Theory]
    [InlineData("format", "\"other\"", DiagnosticCodes.PlanFormat)]
    [InlineData("format", "7", DiagnosticCodes.PlanFormat)]
    [InlineData("version", "2", DiagnosticCodes.PlanFormat)]
    [InlineData("version", "0", DiagnosticCodes.PlanFormat)]
    [InlineData("version", "1.5", DiagnosticCodes.PlanFormat)]
    [InlineData("version", "1e99", DiagnosticCodes.PlanFormat)]
    [InlineData("bitness", "48", DiagnosticCodes.PlanFormat)]
    [InlineData("backend", "\"\"", DiagnosticCodes.PlanFormat)]
    [InlineData("backend", null, DiagnosticCodes.PlanFormat)]
    [InlineData("segments", "{}", DiagnosticCodes.PlanFormat)]
    [InlineData("segments", "[{}]", DiagnosticCodes.PlanInconsistent)]
    [InlineData("segments", "[{\"name\":\"a\",\"address\":\"0x0\",\"length\":-1}]", DiagnosticCodes.PlanInconsistent)]
    [InlineData("segments", "[{\"name\":\"a\",\"address\":\"zz\",\"length\":1}]", DiagnosticCodes.PlanFormat)]
    [InlineData("sites", null, DiagnosticCodes.PlanFormat)]
    [InlineData("sites", "[null]", DiagnosticCodes.PlanInconsistent)]
    [InlineData("sites", "[[]]", DiagnosticCodes.PlanInconsistent)]
    [InlineData("diagnostics", "[1]", DiagnosticCodes.PlanFormat)]
    [InlineData("diagnostics", "[{}]", DiagnosticCodes.PlanFormat)]
    [InlineData("diagnostics", null, DiagnosticCodes.PlanFormat)]
    public void A_lie_at_the_top_is_found(string member, string? value, string code) =>
        AssertRefused(code, root => Set(root, member, value));

    [Theory]
    [InlineData("address", null, DiagnosticCodes.PlanFormat)]
    [InlineData("address", "4194304", DiagnosticCodes.PlanFormat)]
    [InlineData("address", "\"0x\"", DiagnosticCodes.PlanFormat)]
    [InlineData("address", "\"0x11112222333344445\"", DiagnosticCodes.PlanFormat)]
    [InlineData("address", "\"0xfffffffffffffffc\"", DiagnosticCodes.PlanInconsistent)]
    [InlineData("address", "\"0x400001\"", DiagnosticCodes.SiteOverlap)] // on its neighbour
    [InlineData("address", "\"0x400008\"", DiagnosticCodes.SiteDuplicate)]
    [InlineData("length", "0", DiagnosticCodes.PlanFormat)]
    [InlineData("length", "255", DiagnosticCodes.PlanFormat)]
    [InlineData("length", "7", DiagnosticCodes.PlanInconsistent)]
    [InlineData("length", "-2147483649", DiagnosticCodes.PlanFormat)]
    [InlineData("old", null, DiagnosticCodes.PlanInconsistent)]
    [InlineData("old", "\"\"", DiagnosticCodes.PlanInconsistent)]
    [InlineData("old", "\"ff 15 0\"", DiagnosticCodes.PlanInconsistent)]
    [InlineData("new", "\"zz\"", DiagnosticCodes.PlanInconsistent)]
    [InlineData("new", "\"90\"", DiagnosticCodes.PlanInconsistent)]
    [InlineData("replaces", "\"90\"", DiagnosticCodes.PlanInconsistent)]
    [InlineData("action", "\"explode\"", DiagnosticCodes.PlanInconsistent)]
    [InlineData("action", "\"leaveAlone\"", DiagnosticCodes.PlanInconsistent)] // with other bytes
    [InlineData("action", "3", DiagnosticCodes.PlanInconsistent)]
    [InlineData("reason", "\"\"", DiagnosticCodes.PlanInconsistent)]
    [InlineData("clobbers", "\"rfoo\"", DiagnosticCodes.PlanInconsistent)]
    [InlineData("type", "70000", DiagnosticCodes.PlanFormat)]
    [InlineData("target", "\"\"", DiagnosticCodes.PlanFormat)]
    public void A_lie_about_a_site_is_found(string member, string? value, string code) =>
        AssertRefused(code, root => Set(root["sites"]![0]!.AsObject(), member, value));

    [Theory]
    [InlineData(32, "eax,ecx,edx")]
    [InlineData(64, "rax,rcx,rdx")]
    public void Registers_have_the_names_of_the_code(int bitness, string clobbers)
    {
        byte[] code = [0xff, 0x15, 0, 0, 0, 0];
        var builder = new PlanBuilder("b", "r", new CodeImage(bitness, [new CodeSegment(".text", 0x400000, code)]));
        RegisterSet set = RegisterSet.Rax | RegisterSet.Rcx | RegisterSet.Rdx;
        builder.Add(0x400000, code, code, new PlanOutcome { Label = "slot", Action = PatchAction.LeaveAlone, Clobbers = set });
        byte[] json = PlanJson.ToUtf8(builder.Build());
        Assert.Equal(clobbers, (string?)JsonNode.Parse(json)!["sites"]![0]!["clobbers"]);
        Assert.Equal(set, PlanJson.Read(json)[0].Outcome.Clobbers);
    }

    [Fact]
    public void Replaced_bytes_of_a_wrong_length_have_a_message_of_their_own() => Assert.Equal(
        "a site of 8 bytes replaces 1",
        AssertRefused(DiagnosticCodes.PlanInconsistent, root => Set(root["sites"]![0]!.AsObject(), "replaces", "\"90\"")).Message);

    [Fact]
    public void A_site_that_was_shorter_in_the_plan_before_replaces_nothing_of_it()
    {
        var cases = new PlanCases(2);
        var before = new PlanBuilder("before", "r", cases.Image);
        before.Add(PlanCases.Start, cases.Code.AsSpan(0, 6), [0x0f, 0x1f, 0x44, 0x00, 0x00, 0x90], Nop);
        before.Add(PlanCases.Start + 8, cases.Code.AsSpan(8, 8), [0x31, 0xc0, 0x31, 0xc0, 0x31, 0xc0, 0x31, 0xc0], Nop);
        PatchPlan plan = cases.Plan(Operation.Call(PlanCases.Target), new PlanOptions { Previous = before.Build() });
        byte[] json = PlanJson.ToUtf8(plan);
        JsonArray sites = JsonNode.Parse(json)!["sites"]!.AsArray();
        Assert.Null(sites[0]!["replaces"]);
        Assert.Equal("31 c0 31 c0 31 c0 31 c0", (string?)sites[1]!["replaces"]);
        Assert.Equal(json, PlanJson.ToUtf8(PlanJson.Read(json)));
    }

    [Fact]
    public void Cut_off_and_changed_texts_never_throw_anything_else()
    {
        byte[] json = PlanJson.ToUtf8(new PlanCases(3).Plan(Operation.Missing));
        for (int length = 0; length < json.Length; length++)
        {
            Assert.False(PlanJson.TryRead(json.AsMemory(0, length), out _, out PatchDiagnostic? error));
            Assert.Equal(DiagnosticCodes.PlanFormat, error.Code);
        }

        var random = TestSeed.NewRandom();
        for (int i = 0; i < 5000; i++)
        {
            byte[] changed = [.. json];
            for (int n = random.Next(1, 4); n > 0; n--)
            {
                changed[random.Next(changed.Length)] = (byte)random.Next(256);
            }

            if (PlanJson.TryRead(changed, out PatchPlan? plan, out PatchDiagnostic? error))
            {
                PlanJson.ToUtf8(plan); // what was taken for a plan can be stored
            }
            else
            {
                Assert.StartsWith("PV", error.Code, StringComparison.Ordinal);
            }
        }
    }

    [Fact]
    public void Half_a_surrogate_pair_is_refused()
    {
        string json = System.Text.Encoding.UTF8.GetString(PlanJson.ToUtf8(new PlanCases(1).Plan(Operation.Nop)));
        byte[] half = System.Text.Encoding.UTF8.GetBytes(json.Replace("ops.s0", "\\ud800", StringComparison.Ordinal));
        Assert.False(PlanJson.TryRead(half, out _, out PatchDiagnostic? error));
        Assert.Equal(DiagnosticCodes.PlanFormat, error.Code);
    }

    [Fact]
    public void Deep_nesting_is_refused()
    {
        byte[] deep = System.Text.Encoding.UTF8.GetBytes(new string('[', 100_000));
        Assert.False(PlanJson.TryRead(deep, out _, out PatchDiagnostic? error));
        Assert.Equal(DiagnosticCodes.PlanFormat, error.Code);
        Assert.NotNull(error.Expected);
    }

    private static PatchDiagnostic AssertRefused(string code, Action<JsonObject> change)
    {
        JsonObject root = JsonNode.Parse(PlanJson.ToUtf8(new PlanCases(3).Plan(Operation.Call(PlanCases.Target))))!.AsObject();
        change(root);
        byte[] json = System.Text.Encoding.UTF8.GetBytes(root.ToJsonString());
        Assert.False(PlanJson.TryRead(json, out PatchPlan? plan, out PatchDiagnostic? error));
        Assert.Null(plan);
        Assert.Equal(code, error.Code);
        Assert.Equal(DiagnosticSeverity.Error, error.Severity);
        Assert.Equal(code, Assert.Throws<PatchException>(() => PlanJson.Read(json)).Diagnostic.Code);
        return error;
    }

    private static void Set(JsonObject target, string member, string? value)
    {
        target.Remove(member);
        if (value is not null)
        {
            target[member] = JsonNode.Parse(value);
        }
    }
}
