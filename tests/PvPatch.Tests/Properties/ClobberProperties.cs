using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Properties;

/// <summary>
/// Under the rules <c>Default</c> no patch destroys more than its site allows, by a second reader's account of what instructions write.
/// </summary>
public sealed class ClobberProperties
{
    [Fact]
    public void New_code_destroys_only_what_its_site_allows() => PropertyCheck.Holds(ScenarioGen.Scenarios, 400, static scenario =>
    {
        var built = new BuiltScenario(scenario);
        PatchPlan plan = built.Plan(0);
        foreach (PatchSite site in built.Sites.Sites)
        {
            SiteDecision decision = plan[plan.IndexContaining(site.Address)];
            RegisterSet destroyed = Destroyed(decision, built, plan, site);
            Assert.True(site.Clobbers.Contains(destroyed),
                $"{decision} destroys {destroyed.Except(site.Clobbers)} at a site that allows {site.Clobbers}");
        }
    });

    [Fact]
    public void Where_there_is_no_stack_none_is_used() => PropertyCheck.Holds(ScenarioGen.Scenarios, 400, static scenario =>
    {
        var built = new BuiltScenario(scenario);
        PatchPlan plan = built.Plan(0);
        foreach (PatchSite site in built.Sites.Sites)
        {
            SiteDecision decision = plan[plan.IndexContaining(site.Address)];
            bool none = (site.Traits & SiteTraits.NoStack) != 0 || built.Layout[site.Slot].Convention == CallConvention.StaticRegisters;
            if (none && decision.Action != PatchAction.LeaveAlone)
            {
                Assert.False(
                    CapstoneEffects.Of(decision.NewBytes, site.Address.Value, scenario.Bitness, default).UsesStack, decision.ToString());
            }
        }
    });

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void The_two_readers_agree_about_every_body(int bitness)
    {
        RegisterSet calls = RegisterSet.Rbx | RegisterSet.Vector;
        for (int i = 0; i < Bodies.Of(bitness).Count; i++)
        {
            byte[] code = Bodies.Bytes(bitness, i);
            Assert.True(BodyBuilder.TryBuild(
                InlineBody.FromBytes(code, Bodies.Origin, calls), CallConvention.SysV, bitness, out AssembledBody? body,
                out PatchDiagnostic? error), error?.ToString());
            CapstoneEffects effects = CapstoneEffects.Of(code, Bodies.Origin, bitness, calls);
            Assert.Equal(body.EndsControlFlow ? RegisterSet.None : effects.Destroys, body.Destroys);
            Assert.Equal(effects.UsesStack, body.UsesStack);
        }
    }

    private static RegisterSet Destroyed(SiteDecision decision, BuiltScenario built, PatchPlan plan, PatchSite site)
    {
        OpSlot slot = built.Layout[site.Slot];
        Operation operation = built.Backends[0][site.Slot];
        RegisterSet byCalls = slot.Convention.DestroyedBy(plan.Bitness);
        RegisterSet byTarget = operation.TargetDestroys ?? byCalls;
        byTarget |= operation.CallerArgument is int argument ? slot.Convention.Argument(argument, plan.Bitness) : RegisterSet.None;
        switch (decision.Action)
        {
            case PatchAction.Call:
                return byTarget;
            case PatchAction.ThunkCall:
                SiteDecision thunk = plan[plan.IndexContaining(Branches.Target(decision.NewBytes, decision.Address, 0, plan.Bitness))];
                CheckThunk(thunk, plan.Bitness, operation.CallerArgument is not null);
                return byTarget.Except(CapstoneEffects.Of(thunk.NewBytes, thunk.Address.Value, plan.Bitness, default).Pushed);
            case PatchAction.Identity:
                return plan.Bitness == 32 ? RegisterSet.None : RegisterSet.Rax;
            case PatchAction.Inline:
                byte[] body = Bodies.Bytes(plan.Bitness, built.SpecOf(0, site.Slot).Body);
                return body[0] == 0xe9 ? RegisterSet.None // leaves, and does not come back
                    : CapstoneEffects.Of(decision.NewBytes[..body.Length], decision.Address.Value, plan.Bitness, byCalls).Destroys;
            default:
                return RegisterSet.None;
        }
    }

    /// <summary>
    /// A thunk pushes, calls once, pops the same in the opposite order, and returns; beside that it moves the stack pointer by lea only.
    /// Where it gives flags back it first puts the interrupt flag of now into them. Where it passes the caller it loads that from above what
    /// it pushed, and where it saves nothing it jumps.
    /// </summary>
    private static void CheckThunk(SiteDecision thunk, int bitness, bool passesCaller)
    {
        string[] code = [.. CapstoneReader.Disassemble(thunk.NewBytes, thunk.Address.Value, bitness).Select(i => i.Text)];
        if (passesCaller)
        {
            int pushed = code.TakeWhile(static t => t.StartsWith("push", StringComparison.Ordinal)).Count() * (bitness / 8);
            string from = pushed == 0 ? "" : pushed < 10 ? $" + {pushed}" : $" + 0x{pushed:x}";
            string load = Assert.Single(code, t => t.EndsWith($"ptr [{(bitness == 64 ? "r" : "e")}sp{from}]", StringComparison.Ordinal)
                && t.StartsWith("mov ", StringComparison.Ordinal));
            code = [.. code.Where(t => t != load)];
            if (pushed == 0 && code.Length == 1)
            {
                Assert.StartsWith("jmp 0x", code[0], StringComparison.Ordinal);
                return;
            }
        }

        string[] merge = MergeOfInterruptFlag(bitness);
        int at = Enumerable.Range(0, code.Length).FirstOrDefault(i => code.Skip(i).Take(merge.Length).SequenceEqual(merge), -1);
        string[] pushes = [.. code.TakeWhile(t => t.StartsWith("push", StringComparison.Ordinal))];
        Assert.Equal(pushes.Any(static p => p.StartsWith("pushf", StringComparison.Ordinal)), at >= 0);
        code = at < 0 ? code : [.. code[..at], .. code[(at + merge.Length)..]];
        string[] middle = [.. code.Skip(pushes.Length).TakeWhile(t => !t.StartsWith("pop", StringComparison.Ordinal) && t != "ret")];
        string[] pops = [.. code.Skip(pushes.Length + middle.Length).TakeWhile(t => t.StartsWith("pop", StringComparison.Ordinal))];
        Assert.True(pushes.Length > 0 || passesCaller);
        Assert.Equal(pushes.Reverse().Select(p => p.Replace("push", "pop", StringComparison.Ordinal)), pops);
        Assert.Equal(["ret"], code.Skip(pushes.Length + middle.Length + pops.Length));
        Assert.Single(middle, t => t.StartsWith("call 0x", StringComparison.Ordinal));
        Assert.All(middle, t =>
            Assert.True(t.StartsWith("call 0x", StringComparison.Ordinal) || t.StartsWith("lea rsp, [rsp", StringComparison.Ordinal), t));
    }

    private static string[] MergeOfInterruptFlag(int bitness) => bitness == 64
        ? ["push rax", "pushfq", "pop rax", "and eax, 0x200", "and qword ptr [rsp + 8], 0xfffffffffffffdff", "or qword ptr [rsp + 8], rax",
            "pop rax"]
        : ["push eax", "pushfd", "pop eax", "and eax, 0x200", "and dword ptr [esp + 4], 0xfffffdff", "or dword ptr [esp + 4], eax",
            "pop eax"];
}
