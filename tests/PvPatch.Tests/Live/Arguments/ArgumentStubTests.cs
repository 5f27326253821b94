using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Arguments;

/// <summary>
/// The stubs that load arguments: who is found by them, what plans say of them, that they come and go with the block; and what is refused.
/// </summary>
public sealed unsafe class ArgumentStubTests
{
    [Fact]
    public void A_function_finds_its_caller_and_the_callers_argument_by_the_return_address()
    {
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Direct.Derive("return", b => b.Call("t.op", code.Returner, null, RegisterSet.Rax)));
        LiveSite site = code.Emit(0x4711, EchoCode.Allowed)[0];
        foreach (bool bound in (bool[])[false, true])
        {
            if (bound)
            {
                patcher.Bind(site.Block);
            }

            Assert.Equal(bound ? LiveForm.Call : LiveForm.Original, site.Form);
            VirtualAddress returned = (ulong)LiveCode.Call(site.Block);
            Assert.Equal(site.End, returned);
            Assert.True(code.Arena.TryFindCaller(returned, out LiveSite caller));
            Assert.Equal((site, 0x4711UL), (caller, caller.Argument!.Value.Value));
            VirtualAddress stub = site.End + BitConverter.ToInt32(site.ToArray().AsSpan(2));
            Assert.True(code.Arena.TryFindSite(stub, out LiveSite owner)); // a signal in the stub
            Assert.Equal(site, owner);
            Assert.Contains($"argument of the site at {site.Address}", code.Arena.Dump(stub, 5), StringComparison.Ordinal);
            Assert.Contains("to argument", code.Arena.Dump(site.Block), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Links_into_a_block_are_known_through_the_stub_and_targets_out_of_reach_are_reached()
    {
        using CodeArena low = CodeArena.Reserve(0x10_0000_0000, 1 << 20);
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock target = code.EmitEcho(code.Arena, 10);
        CodeBlock far = code.EmitEcho(low, 20);
        Assert.False(code.Arena.Reaches(far.Address));
        CodeBlock block = code.Emit(0x1234, EchoCode.Allowed);
        patcher.Link([new SiteLink(block[0], target.Address, RegisterSet.Rax)]);
        Assert.Equal((1, 0x1234 + 10), (target.IncomingLinkCount, LiveCode.Call(block)));
        Assert.Equal(
            DiagnosticCodes.BlockLinked, Assert.Throws<PatchException>(() => code.Arena.Retire(target)).Diagnostic.Code);
        patcher.Link([new SiteLink(block[0], far.Address, RegisterSet.Rax)]);
        Assert.Equal((0, 1, 0x1234 + 20), (target.IncomingLinkCount, far.IncomingLinkCount, LiveCode.Call(block)));
        Assert.Equal(far.Address, block[0].Target);
        patcher.Unlink(SiteScope.LinkedInto([far]));
        Assert.Equal((0, 0x1234), (far.IncomingLinkCount, LiveCode.Call(block)));
        low.Retire(far);

        // A switch leaves such a site to its slot.
        patcher.Switch(code.Direct.Derive("far", b => b.Call("t.op", code.EmitEcho(low, 30).Address, null, RegisterSet.Rax)));
        Assert.Equal((LiveForm.Original, PatchReason.OutOfReach), (block[0].Form, block[0].Reason));
        Assert.Equal(0x1234 + 30, LiveCode.Call(block));
    }

    [Fact]
    public void A_plan_names_the_function_before_and_after_its_stub_is_placed()
    {
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Nops);
        CodeBlock block = code.Emit(0x1234, EchoCode.Allowed);
        patcher.Bind(block);
        long used = code.Arena.Used;
        foreach ((Backend backend, VirtualAddress? target, string detail) in ((Backend, VirtualAddress?, string)[])
            [(code.Direct, code.Echo, "through a stub that has no place yet"), (code.Several, null, "in an island that has no place yet")])
        {
            LivePlan plan = patcher.Plan(c => c.Use(backend));
            PlanOutcome entry = plan.Plan[0].Outcome;
            Assert.Equal((target, detail), (entry.Target, entry.Detail));
            Assert.Equal(1, plan.Writes);
            Assert.Equal(used, code.Arena.Used);
            Assert.True(patcher.Apply(plan).Succeeded);
            Assert.Equal(target, block[0].Target);
            Assert.Equal(0x1234, LiveCode.Call(block));
            patcher.Switch(code.Nops);
            entry = patcher.Plan(c => c.Use(backend)).Plan[0].Outcome;
            Assert.Equal(target, entry.Target);
            Assert.Equal(target is null ? "in an island" : null, entry.Detail);
            used = code.Arena.Used;
        }
    }

    [Fact]
    public void What_stubs_and_islands_take_comes_back_with_the_block()
    {
        using var code = new EchoCode();
        using Executor executor = code.Arena.RegisterExecutor();
        using LivePatcher patcher = code.Patcher(code.Direct);
        long high = 0;
        for (int round = 0; round < 300; round++)
        {
            CodeBlock[] blocks = [.. Enumerable.Range(0, 20).Select(i =>
                code.Emit(0x8877665544332211 + (ulong)(round * 20 + i), EchoCode.Allowed))];
            patcher.Switch(code.Direct);
            patcher.Switch(code.Several);
            patcher.Link([.. blocks.Select(b => new SiteLink(b[0], code.EchoPlus, RegisterSet.Rax))]);
            code.Arena.Retire(blocks);
            executor.Enter();
            executor.Leave();
            code.Arena.Reclaim();
            high = round < 20 ? Math.Max(high, code.Arena.Used) : high;
        }

        Assert.InRange(code.Arena.Used, 0, high);
    }

    [Fact]
    public void A_refused_emit_leaves_nothing_behind()
    {
        using var code = new EchoCode();

        // The body may jump out and destroys rcx, which could not be saved around it: a site that keeps rcx is refused (PV8030).
        using LivePatcher patcher = code.Patcher(code.Direct.Derive("leaves", b => b.Inline("t.op", a =>
        {
            a.mov(ecx, 1);
            a.js(code.Echo.Value);
        })));
        _ = Assert.Throws<PatchException>(() => code.Emit(1, EchoCode.Allowed)); // makes the page
        long used = code.Arena.Used;
        for (int i = 0; i < 1000; i++)
        {
            Assert.Equal(DiagnosticCodes.SlotFunction, Assert.Throws<PatchException>(() => code.Emit(1, EchoCode.Allowed)).Diagnostic.Code);
        }

        Assert.Equal(used, code.Arena.Used);
    }

    [Fact]
    public void A_batch_that_fails_at_any_step_leaves_the_argument_in_place()
    {
        using var code = new EchoCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock[] blocks = [.. Enumerable.Range(0, 8).Select(i =>
            code.Emit(0x1234, EchoCode.Allowed, 6 + i, 8 * i + 1, forwarding: i % 2 == 0))];
        patcher.Bind(blocks);
        foreach (Backend backend in (Backend[])[code.Several, code.Constant, code.OneInstruction, code.Direct])
        {
            byte[] before = LiveCode.Snapshot(blocks);
            long[] values = [.. blocks.Select(static b => LiveCode.Call(b))];
            int fails = 0;
            for (bool failed = true; failed; fails++)
            {
                int left = fails;
                patcher.Probe = (_, _) => _ = left-- == 0 ? throw new InvalidOperationException("injected") : 0;
                ApplyResult result = patcher.TrySwitch(backend);
                failed = !result.Succeeded;
                if (failed)
                {
                    Assert.Equal(ApplyStatus.RolledBack, result.Status);
                    Assert.Equal(before, LiveCode.Snapshot(blocks));
                    Assert.Equal(values, blocks.Select(static b => LiveCode.Call(b)));
                }
            }

            Assert.InRange(fails, 5, 100);
            Assert.All(blocks, b => Assert.Equal(code.Expected(backend, 0x1234), (ulong)LiveCode.Call(b)));
            patcher.Probe = null;
        }
    }

    [Theory]
    [InlineData("rsp", "all", 6, null)]
    [InlineData("rdi,rsi", "all", 6, null)]
    [InlineData("-", "all", 6, null)]
    [InlineData("flags", "all", 6, null)]
    [InlineData("rdi", "rax,rsi", 6, null)]
    [InlineData("rdi", "all", 16, null)]
    [InlineData("rdi", "all", 6, "rdi")]
    [InlineData("rdi", "rdi", 6, "rsi")]
    [InlineData("rdi", "all", 6, "vector")]
    public void An_argument_that_can_not_be_passed_is_refused_and_nothing_is_emitted(
        string register, string allowed, int budget, string? address)
    {
        using var code = new EchoCode();
        var a = new Assembler(64);
        var sites = new SiteEmitter(code.Layout);
        var argument = new SiteArgument(1)
        {
            Register = RegisterSet.Parse(register),
            AddressRegister = address is null ? null : RegisterSet.Parse(address),
        };
        PatchException e = Assert.Throws<PatchException>(
            () => sites.Emit(a, code.Layout[0], budget, RegisterSet.Parse(allowed), SitePlacement.None, argument: argument));
        Assert.Equal(DiagnosticCodes.SiteArgument, e.Diagnostic.Code);
        Assert.NotNull(e.Diagnostic.Found);
        Assert.NotNull(e.Diagnostic.Help);
        Assert.Equal((0, 0), (sites.Count, a.Instructions.Count));
        Assert.Null(sites.Assembler);
    }

    [Fact]
    public void The_default_register_is_that_of_the_conventions_first_argument()
    {
        foreach ((CallConvention convention, RegisterSet register) in ((CallConvention, RegisterSet)[])
        [
            (CallConvention.SysV, RegisterSet.Rdi), (CallConvention.KernelSysV, RegisterSet.Rdi),
            (CallConvention.WindowsX64, RegisterSet.Rcx),
        ])
        {
            using var code = new EchoCode(convention: convention);
            Assert.Equal(register, code.Emit(1, null)[0].Argument!.Value.Register);
            Assert.Null(code.Emit(default, null)[0].Argument);
        }

        // Callee-save functions destroy rax only: the site has to allow the register.
        using var saving = new EchoCode(convention: CallConvention.CalleeSave);
        PatchException e = Assert.Throws<PatchException>(() => saving.Emit(1, null));
        Assert.Equal(DiagnosticCodes.SiteArgument, e.Diagnostic.Code);
        Assert.Equal("rdi; allowed: rax,flags", e.Diagnostic.Found);
    }
}
