using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>Links asked for from inside generated code: queued, made later, and what no longer stands is dropped and told of.</summary>
public sealed unsafe class LinkRequestTests
{
    [Fact]
    public void A_helper_that_the_code_calls_asks_and_the_next_call_leads_there()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        using Executor executor = code.Arena.RegisterExecutor();
        CodeBlock target = Target(code, 7);
        var asked = new List<LinkRequestStatus>();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        patcher.Bind(block);
        using var stub = new Stub(code, returnAddress =>
        {
            Assert.Equal(DiagnosticCodes.InsideGeneratedCode, patcher.TryLink([new SiteLink(block[0], target.Address)]).Diagnostics[0].Code);
            asked.Add(patcher.RequestLink(returnAddress, target.Address));
            return 3;
        });
        patcher.Switch(Backend.Create("stub", code.Layout, b => b
            .Call("t.first", stub.Address, "stub", RegisterSet.Rax).Nop("t.second").Nop("t.third")));

        executor.Enter();
        Assert.Equal([3, 3], [LiveCode.Call(block), LiveCode.Call(block)]);
        Assert.Equal([LinkRequestStatus.Queued, LinkRequestStatus.AlreadyQueued], asked);
        Assert.Equal((1, LiveSiteState.Bound), (patcher.RequestCount, block[0].State));
        Assert.False(patcher.TryApplyRequests(null, out ApplyResult refused));
        Assert.Equal((DiagnosticCodes.InsideGeneratedCode, 1), (refused.Diagnostics[0].Code, patcher.RequestCount));
        executor.Leave();

        ApplyResult result = patcher.ApplyRequests();
        Assert.Equal((1, 1, 1, 0), (result.Count, result.Written, result.Barriers, result.Diagnostics.Count));
        Assert.Equal((7, 0, 2), (LiveCode.Call(block), patcher.RequestCount, asked.Count));
        Assert.Equal((LiveSiteState.Linked, target.Address), (block[0].State, block[0].Target));
        Assert.Equal((0, 0), (patcher.ApplyRequests().Count, patcher.ApplyRequests().Barriers));
    }

    [Fact]
    public void Requests_become_one_batch_with_one_barrier()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock[] blocks = [.. Enumerable.Range(0, 40).Select(_ => code.EmitFunction(SiteWish.Aligned()))];
        patcher.Bind(blocks);
        CodeBlock target = Target(code, 9);
        Assert.All(blocks, b => Assert.Equal(LinkRequestStatus.Queued, patcher.RequestLink(To(b, target))));
        ApplyResult result = patcher.ApplyRequests();
        Assert.Equal((40, 40, 1), (result.Count, result.Written, result.Barriers));
        Assert.All(blocks, static b => Assert.Equal(9, LiveCode.Call(b)));
        Assert.Equal(40, target.IncomingLinkCount);
        Assert.Equal([.. blocks.Select(static b => b[0])], target.IncomingLinks);
        patcher.Unlink(SiteScope.LinkedInto(target));
        Assert.Equal((0, 0), (target.IncomingLinkCount, target.IncomingLinks.Count));
    }

    [Fact]
    public void A_batch_of_other_changes_makes_them_first_but_a_bind_and_a_promised_plan_do_not()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        (CodeBlock block, CodeBlock target) = (code.EmitFunction(SiteWish.Aligned()), Target(code, 9));
        patcher.Bind(block);
        LivePlan plan = patcher.Plan(c => c.Use(code.Inlined));
        patcher.RequestLink(To(block, target));
        patcher.Bind(block);
        patcher.Apply(plan);
        Assert.Equal((1, 1), (patcher.RequestCount, LiveCode.Call(block)));
        Assert.Equal(1, patcher.Switch(code.Direct).KeptLinks);
        Assert.Equal((0, 9), (patcher.RequestCount, LiveCode.Call(block)));

        // As if they had been made before: what unlinks takes them too.
        CodeBlock other = code.EmitFunction(SiteWish.Aligned());
        patcher.RequestLink(To(other, target));
        Assert.Equal(2, patcher.Unlink(SiteScope.LinkedInto(target)).Written);
        code.Arena.Retire(target);
        Assert.Equal((2, 2), (LiveCode.Call(block), LiveCode.Call(other)));
    }

    [Fact]
    public void A_safepoint_makes_them_but_not_inside_another_executor_nor_during_anothers_batch()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        using Executor executor = code.Arena.RegisterExecutor();
        using Executor outer = code.Arena.RegisterExecutor();
        (CodeBlock block, CodeBlock target) = (code.EmitFunction(SiteWish.Aligned()), Target(code, 9));
        patcher.Bind(block);
        patcher.RequestLink(To(block, target));
        outer.Enter();
        executor.Enter();
        executor.Safepoint();
        Assert.Equal((1, 2), (patcher.RequestCount, LiveCode.Call(block)));
        executor.Enter(); // nested: it may be inside further out
        executor.Safepoint();
        executor.Leave();
        executor.Leave();
        outer.Leave();
        Assert.Equal(1, patcher.RequestCount);

        executor.Enter();
        PatchLock held = null!;
        ExecutorThreadTests.OnThread(() => held = code.Arena.PatchLock.Enter(wait: true));
        executor.Safepoint();
        Assert.Equal(1, patcher.RequestCount);
        held.Dispose();
        executor.Safepoint();
        Assert.True(executor.IsInside);
        Assert.Equal((0, 9), (patcher.RequestCount, LiveCode.Call(block)));
        executor.Leave();
    }

    [Fact]
    public void What_was_overtaken_is_dropped_and_told_of()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock[] blocks = [.. Enumerable.Range(0, 7).Select(_ => code.EmitFunction(SiteWish.Aligned()))];
        patcher.Bind(blocks);
        (CodeBlock target, CodeBlock other, CodeBlock gone) = (Target(code, 9), Target(code, 8), Target(code, 6));
        patcher.Link(blocks[4][0], target.Address);
        patcher.Link(blocks[5][0], target.Address);
        Assert.All<(int Site, CodeBlock? To)>(
            [(0, target), (1, target), (2, gone), (3, target), (4, other), (5, null), (6, target)],
            r => Assert.Equal(LinkRequestStatus.Queued, patcher.RequestLink(new SiteLink(blocks[r.Site][0], r.To?.Address))));

        // Meanwhile, by a patcher that has not heard of them: that of a host, on another thread.
        LivePlan plan = patcher.Plan(c => c.Link(
            new(blocks[1][0], other.Address), new(blocks[4][0], other.Address), new(blocks[5][0], other.Address), new(blocks[6][0], target.Address))
            .Use(code.Inlined, SiteScope.Sites(blocks[3][0], blocks[0][0])));
        patcher.Apply(plan, new SwitchOptions());
        code.Arena.Retire(gone);
        code.Arena.Retire(blocks[0]);
        ApplyResult result = patcher.ApplyRequests();
        Assert.Equal(ApplyStatus.Applied, result.Status);
        Assert.Equal([9, 8, 2, 9, 8, 8, 9], Enumerable.Range(0, 7).Select(i => i == 0 ? 9 : (int)LiveCode.Call(blocks[i])));
        Assert.Equal((1, 2), (result.Written, result.AlreadyThere)); // 3, for switches do not matter; 4 and 6, which lead there already
        Assert.Equal([0, 1, 2, 5], result.Diagnostics.Select(d => Array.FindIndex(blocks, b => b[0].Address == d.Address)).Order());
        Assert.All(result.Diagnostics, static d =>
            Assert.Equal((DiagnosticCodes.RequestNotMade, DiagnosticSeverity.Warning), (d.Code, d.Severity)));
        Assert.Equal(0, patcher.RequestCount);
    }

    [Fact]
    public void A_target_that_is_another_block_by_now_is_not_linked_to()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        using (code.Arena.RegisterExecutor())
        {
            CodeBlock block = code.EmitFunction(SiteWish.Aligned());
            CodeBlock target = Target(code, 9);
            patcher.Bind(block);
            patcher.RequestLink(To(block, target));
            code.Arena.Retire(target);
            code.Arena.Reclaim();
            CodeBlock successor = Target(code, 8);
            Assert.Equal(target.Address, successor.Address);
            ApplyResult result = patcher.ApplyRequests();
            Assert.Equal((0, 1, 2), (result.Count, result.Diagnostics.Count, LiveCode.Call(block)));

            // The other way round: no block yet when it was asked for.
            code.Arena.Retire(successor);
            code.Arena.Reclaim();
            Assert.Equal(LinkRequestStatus.Queued, patcher.RequestLink(new SiteLink(block[0], successor.Address)));
            Assert.Equal(successor.Address, Target(code, 7).Address);
            Assert.Equal((0, 1), (patcher.ApplyRequests().Count, block[0].Class == SiteClass.Atomic8 ? 1 : 0));
            Assert.Equal(2, LiveCode.Call(block));
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void One_that_can_not_be_made_does_not_keep_the_others_from_it(bool byAnother)
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock[] blocks = [code.EmitFunction(SiteWish.Aligned()), code.EmitFunction(new SiteWish(0, 30)),
            code.EmitFunction(SiteWish.Aligned()), code.EmitFunction(SiteWish.Aligned())];
        patcher.Bind(blocks);
        CodeBlock target = Target(code, 9);
        patcher.RequestLink(To(blocks[0], target));
        patcher.RequestLink(To(blocks[1], target)); // quiescence only
        patcher.RequestLink(new SiteLink(blocks[2][0], 8)); // no code
        patcher.RequestLink(To(blocks[3], target));
        byte* debugged = code.Arena.Memory.WriteView(blocks[3][0].Address);
        (byte kept, *debugged) = (*debugged, 0xcc);
        if (byAnother)
        {
            Assert.Empty(patcher.Switch(code.Direct, SiteScope.Slot(code.Layout[1])).Diagnostics); // tells of its own changes
        }
        else
        {
            ApplyResult result = patcher.ApplyRequests();
            Assert.Equal((ApplyStatus.Applied, 1, 1), (result.Status, result.Count, result.Written));
            Assert.Equal([DiagnosticCodes.NeedsQuiescence, DiagnosticCodes.UnexpectedLiveBytes, DiagnosticCodes.TargetNotExecutable],
                result.Diagnostics.Select(static d => d.Message.Split(": ")[1]).Order());
        }

        *debugged = kept;
        Assert.Equal(0, patcher.RequestCount);
        Assert.Equal([9, 2, 2, 2], blocks.Select(static b => LiveCode.Call(b)));
        patcher.RequestLink(To(blocks[1], target));
        Assert.Equal(1, patcher.ApplyRequests(LiveCode.Quiescent).Written);
        Assert.Equal(9, LiveCode.Call(blocks[1]));
    }

    [Fact]
    public void A_full_queue_says_so_and_has_room_again()
    {
        using var code = new LiveCode(size: 4 << 20);
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock block = code.EmitFunction([.. Enumerable.Repeat(SiteWish.Aligned(), LivePatcher.MaxRequests + 10)]);
        patcher.Bind(block);
        CodeBlock target = Target(code, 9);
        for (int lap = 0; lap < 3; lap++)
        {
            for (int i = 0; i < block.SiteCount; i++)
            {
                Assert.Equal(i < LivePatcher.MaxRequests ? LinkRequestStatus.Queued : LinkRequestStatus.QueueFull,
                    patcher.RequestLink(new SiteLink(block[i], target.Address)));
            }

            Assert.Equal(LivePatcher.MaxRequests, patcher.RequestCount);
            Assert.Equal(LivePatcher.MaxRequests, patcher.ApplyRequests().Written);
            Assert.Equal((0, LivePatcher.MaxRequests), (patcher.RequestCount, target.IncomingLinkCount));
            patcher.Unlink(SiteScope.LinkedInto(target));
        }
    }

    [Fact]
    public void Refused_are_strangers_the_retired_and_all_after_the_end()
    {
        using var code = new LiveCode();
        using var strange = new LiveCode();
        LivePatcher patcher = code.Patcher(code.Direct);
        (CodeBlock block, CodeBlock target) = (code.EmitFunction(SiteWish.Aligned()), Target(code, 9));
        CodeBlock retired = Target(code, 8);
        CodeBlock retiredToo = code.EmitFunction(SiteWish.Aligned());
        using (Executor inside = code.Arena.RegisterExecutor())
        {
            inside.Enter(); // their bytes are kept
            code.Arena.Retire([retired, retiredToo]);
            SiteLink[] wrong = [default, To(strange.EmitFunction(SiteWish.Aligned()), target), To(block, retired), To(retiredToo, target)];
            var a = new Assembler(64);
            var sites = new SiteEmitter(code.Layout);
            Label label = a.CreateLabel();
            sites.Branch(a, new StaticKey("key"), label);
            a.Label(ref label);
            a.ret();
            wrong = [.. wrong, To(code.Arena.Emit(a, sites), target)]; // follows a key
            Assert.All(wrong, l => Assert.Equal(LinkRequestStatus.Refused, patcher.RequestLink(l)));
            inside.Leave();
        }

        Assert.Equal(LinkRequestStatus.Refused, patcher.RequestLink(target.Address + 1, target.Address)); // no site returns there
        Assert.Equal(0, patcher.RequestCount);
        patcher.Dispose();
        Assert.Equal(LinkRequestStatus.Refused, patcher.RequestLink(To(block, target)));
        using LivePatcher second = code.Patcher(code.Direct);
        code.Arena.Dispose();
        Assert.Equal(LinkRequestStatus.Refused, second.RequestLink(To(block, target)));
        Assert.Equal(LinkRequestStatus.Refused, second.RequestLink(block[0].End, target.Address));
        Assert.False(second.TryApplyRequests(null, out ApplyResult result));
        Assert.Equal(DiagnosticCodes.ArenaDisposed, result.Diagnostics[0].Code);
    }

    [Fact]
    public void A_batch_that_is_taken_back_leaves_them_queued()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock[] blocks = [code.EmitFunction(SiteWish.Aligned()), code.EmitFunction(SiteWish.Aligned())];
        patcher.Bind(blocks);
        CodeBlock target = Target(code, 9);
        Assert.All(blocks, b => patcher.RequestLink(To(b, target)));
        patcher.Probe = static (step, _) => throw new InvalidOperationException($"{step}");
        Assert.False(patcher.TryApplyRequests(null, out ApplyResult result));
        patcher.Probe = null;
        Assert.Equal((ApplyStatus.RolledBack, 2), (result.Status, patcher.RequestCount));
        Assert.Equal([2, 2], blocks.Select(static b => LiveCode.Call(b)));
        Assert.Equal(2, patcher.ApplyRequests().Written);
        Assert.Equal([9, 9], blocks.Select(static b => LiveCode.Call(b)));
    }

    [Fact]
    public void Asking_allocates_nothing()
    {
        using var code = new LiveCode();
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock block = code.EmitFunction([.. Enumerable.Repeat(SiteWish.Aligned(), 64)]);
        CodeBlock target = Target(code, 9);
        patcher.Bind(block);
        long least = long.MaxValue;
        for (int round = 0; round < 20; round++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 128; i++)
            {
                _ = patcher.RequestLink(block[i % 64].End, target.Address);
            }

            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
            Assert.Equal(64, patcher.RequestCount);
            patcher.ApplyRequests();
            patcher.Unlink(SiteScope.LinkedInto(target));
        }

        Assert.Equal(0, least);
    }

    [Fact]
    public void Many_threads_ask_while_others_apply_switch_unlink_and_retire()
    {
        const int Threads = 3;
        int seed = Environment.TickCount;
        TestContext.Current.SendDiagnosticMessage($"seed {seed}");
        using var code = new LiveCode(size: 16 << 20);
        using LivePatcher patcher = code.Patcher(code.Direct);
        CodeBlock block = code.EmitFunction([.. Enumerable.Repeat(SiteWish.Aligned(), 200)]);
        patcher.Bind(block);
        CodeBlock?[] targets = [.. Enumerable.Range(0, 8).Select(_ => Target(code, 1))];
        var queued = new long[Threads];
        bool stop = false;
        Exception? failure = null;
        Thread[] threads = [.. Enumerable.Range(0, Threads).Select(t => new Thread(() =>
        {
            try
            {
                var random = new Random(seed + t);
                using Executor executor = code.Arena.RegisterExecutor($"{t}");
                while (!Volatile.Read(ref stop))
                {
                    executor.Enter();
                    for (int i = 0; i < 50; i++)
                    {
                        // Whatever is asked for, the target was in use when it was looked up.
                        CodeBlock? target = Volatile.Read(ref targets[random.Next(targets.Length)]);
                        VirtualAddress? address = random.Next(8) == 0 ? null : target?.Address;
                        SiteLink link = new(block[random.Next(block.SiteCount)], address, RegisterSet.Rax);
                        queued[t] += patcher.RequestLink(link) == LinkRequestStatus.Queued ? 1 : 0;
                    }

                    _ = LiveCode.Call(block);
                    if (random.Next(4) == 0)
                    {
                        executor.Safepoint();
                    }

                    executor.Leave();
                }
            }
            catch (Exception e)
            {
                failure = e;
            }
        }))];
        Array.ForEach(threads, static t => t.Start());
        var main = new Random(seed - 1);
        long made = 0;
        long retired = 0;
        for (int round = 0; round < 300 && Volatile.Read(ref failure) is null; round++)
        {
            _ = patcher.TryApplyRequests(new SwitchOptions { WaitForOther = true }, out ApplyResult result);
            Assert.True(result.Succeeded, result.ToString());
            made += result.Written;
            int number = main.Next(targets.Length);
            if (targets[number] is CodeBlock old)
            {
                Volatile.Write(ref targets[number], null);
                patcher.Unlink(SiteScope.LinkedInto(old), new SwitchOptions { WaitForOther = true });
                try
                {
                    code.Arena.Retire(old);
                    retired++;
                    Volatile.Write(ref targets[number], Target(code, 1));
                }
                catch (PatchException e) when (e.Diagnostic.Code == DiagnosticCodes.BlockLinked)
                {
                    Volatile.Write(ref targets[number], old); // asked for in between, and made
                }
            }
        }

        Volatile.Write(ref stop, true);
        Array.ForEach(threads, static t => t.Join());
        Assert.Null(failure);
        _ = patcher.ApplyRequests(new SwitchOptions { WaitForOther = true });
        Assert.True(made > 0 && retired > 0 && queued.Sum() > 0, $"{made} links, {retired} blocks, {queued.Sum()} requests");
        for (int i = 0; i < block.SiteCount; i++)
        {
            // No site leads into a block that is gone, and the ledger knows of every link.
            LiveSite site = block[i];
            CodeBlock? target = targets.FirstOrDefault(t => t?.Address == site.Target);
            Assert.Equal(site.State == LiveSiteState.Linked, target is not null);
            Assert.True(target is null || target.IncomingLinks.Contains(site));
        }

        Assert.Equal(targets.Sum(static t => t?.IncomingLinkCount ?? 0), code.Arena.Ledger.Count);
    }

    private static SiteLink To(CodeBlock block, CodeBlock target) => new(block[0], target.Address, RegisterSet.Rax);

    private static CodeBlock Target(LiveCode code, int result)
    {
        var a = new Assembler(64);
        a.mov(eax, result);
        a.ret();
        return code.Arena.Emit(a);
    }

    /// <summary>A function that calls a C# one with its own return address, and keeps every register but rax.</summary>
    private sealed class Stub : IDisposable
    {
        private readonly System.Runtime.InteropServices.GCHandle _target;

        public Stub(LiveCode code, Func<VirtualAddress, int> target)
        {
            _target = System.Runtime.InteropServices.GCHandle.Alloc(target);
            AssemblerRegister64[] kept = [rcx, rdx, rsi, rdi, r8, r9, r10, r11];
            var a = new Assembler(64);
            Array.ForEach(kept, a.push);
            a.mov(rdi, System.Runtime.InteropServices.GCHandle.ToIntPtr(_target));
            a.mov(rsi, __[rsp + 8 * kept.Length]);
            a.push(rbp);
            a.mov(rbp, rsp);
            a.and(rsp, -16);
            a.mov(rax, (ulong)(nint)(delegate* unmanaged<nint, ulong, int>)&Call);
            a.call(rax);
            a.mov(rsp, rbp);
            a.pop(rbp);
            Array.ForEach([.. kept.Reverse()], a.pop);
            a.ret();
            Address = code.Arena.Emit(a).Address;
        }

        public VirtualAddress Address { get; }

        public void Dispose() => _target.Free();

        [System.Runtime.InteropServices.UnmanagedCallersOnly]
        private static int Call(nint target, ulong returnAddress) =>
            ((Func<VirtualAddress, int>)System.Runtime.InteropServices.GCHandle.FromIntPtr(target).Target!)(returnAddress);
    }
}
