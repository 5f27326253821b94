using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>Everything a host can do wrong: a clear error, and code that still runs.</summary>
public sealed unsafe class AbuseTests
{
    private static LivePatcher? s_patcher;
    private static Executor? s_executor;
    private static Backend? s_backend;
    private static ApplyResult s_result;

    [Theory]
    [InlineData(-1, 6, 0, DiagnosticCodes.LiveSiteOutside)] // before the code
    [InlineData(60, 6, 0, DiagnosticCodes.LiveSiteOutside)] // over its end
    [InlineData(0, 6, 0, DiagnosticCodes.LiveSiteForm)] // in the middle of nowhere
    [InlineData(4, 5, 0, DiagnosticCodes.LiveSiteForm)] // cuts the call
    [InlineData(4, 6, 1, DiagnosticCodes.WrongSlotOperand)]
    [InlineData(4, 6, 3, DiagnosticCodes.SiteUnknownSlot)]
    public void A_foreign_site_that_is_none_is_refused_and_the_room_comes_back(int offset, int length, int slot, string expected)
    {
        using var code = new LiveCode();
        _ = code.Arena.SlotsOf(code.Layout);
        long used = code.Arena.Used;
        using (CodeReservation room = code.Arena.Allocate(64))
        {
            WriteFunction(code, room);
            var sites = SiteTable.Create(new PatchSite(room.Address + offset, slot, length, RegisterSet.Rax));
            PatchException e = Assert.Throws<PatchException>(() => room.Commit(64, code.Layout, sites));
            Assert.Equal(expected, e.Diagnostic.Code);
            Assert.Equal(0, e.Diagnostic.SiteIndex);
        }

        Assert.Equal(used, code.Arena.Used);
    }

    [Fact]
    public void Overlapping_sites_are_refused_by_their_table()
    {
        PatchException e = Assert.Throws<PatchException>(
            () => SiteTable.Create(new PatchSite(100, 0, 6, default), new PatchSite(103, 0, 6, default)));
        Assert.Equal(DiagnosticCodes.SiteOverlap, e.Diagnostic.Code);
    }

    [Fact]
    public void A_foreign_call_with_nops_behind_it_is_changed_only_at_quiescence()
    {
        using var code = new LiveCode();
        using CodeReservation room = code.Arena.Allocate(64);
        WriteFunction(code, room);
        CodeBlock block = room.Commit(64, code.Layout, SiteTable.Create(new PatchSite(room.Address + 4, 0, 8, RegisterSet.Rax)));
        Assert.Equal(SiteClass.QuiescentOnly, block[0].Class);
        byte[] original = block.ToArray();
        using LivePatcher patcher = code.Patcher();
        Assert.Equal(SiteChange.KeptIndirect, patcher.Switch(code.Inlined).Outcomes[0].Change);
        Assert.Equal(1, LiveCode.Call(block));
        Assert.Equal(original, block.ToArray());
        patcher.Switch(code.Inlined, LiveCode.Quiescent);
        Assert.Equal("2e 2e 2e b8 01 00 00 00", HexBytes.Format(block[0].ToArray()));
        patcher.Revert(LiveCode.Quiescent);
        Assert.Equal(original, block.ToArray());
    }

    [Fact]
    public void A_second_patcher_of_the_same_slots_is_refused_until_the_first_is_given_up()
    {
        using var code = new LiveCode();
        LivePatcher first = code.Patcher();
        PatchException e = Assert.Throws<PatchException>(() => code.Patcher());
        Assert.Equal(DiagnosticCodes.PatcherBusy, e.Diagnostic.Code);
        first.Dispose();
        code.Patcher().Dispose();
        Assert.Equal(DiagnosticCodes.ArenaDisposed, first.TrySwitch(code.Direct).Diagnostics[0].Code);
    }

    [Fact]
    public void Two_batches_at_once_are_refused_or_wait_as_they_ask()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        using var inside = new ManualResetEventSlim();
        using var go = new ManualResetEventSlim();
        patcher.Probe = (step, _) =>
        {
            if (step == PatchStep.Store)
            {
                patcher.Probe = null;
                inside.Set();
                go.Wait();
            }
        };
        var first = new Thread(() => patcher.Switch(code.Inlined));
        first.Start();
        inside.Wait();
        ApplyResult refused = patcher.TrySwitch(code.Outlined);
        Assert.Equal(DiagnosticCodes.PatcherBusy, refused.Diagnostics[0].Code);
        ApplyResult waited = default;
        var second = new Thread(() => waited = patcher.TrySwitch(code.Outlined, new SwitchOptions { WaitForOther = true }));
        second.Start();
        go.Set();
        first.Join();
        second.Join();
        Assert.Equal(ApplyStatus.Applied, waited.Status);
        Assert.Equal(3, LiveCode.Call(block));
    }

    [Fact]
    public void Waiting_for_another_batch_can_be_cancelled()
    {
        using var code = new LiveCode();
        code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        using var inside = new ManualResetEventSlim();
        using var go = new ManualResetEventSlim();
        patcher.Probe = (_, _) =>
        {
            patcher.Probe = null;
            inside.Set();
            go.Wait();
        };
        var first = new Thread(() => patcher.Switch(code.Inlined));
        first.Start();
        inside.Wait();
        ApplyResult cancelled;
        try
        {
            using var source = new CancellationTokenSource(TimeSpan.FromMilliseconds(50));
            cancelled = patcher.TrySwitch(code.Outlined, new SwitchOptions { WaitForOther = true, Cancellation = source.Token });
        }
        finally
        {
            go.Set();
            first.Join();
        }

        Assert.Equal(DiagnosticCodes.PatcherBusy, cancelled.Diagnostics[0].Code);
    }

    [Fact]
    public void A_batch_inside_a_batch_on_the_same_thread_is_refused()
    {
        using var code = new LiveCode();
        code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        ApplyResult? inner = null;
        patcher.Probe = (_, _) => inner ??= patcher.TrySwitch(code.Outlined, new SwitchOptions { WaitForOther = true });
        Assert.True(patcher.TrySwitch(code.Inlined).Succeeded);
        Assert.Equal(DiagnosticCodes.PatcherBusy, inner!.Value.Diagnostics[0].Code);
    }

    [Fact]
    public void Patching_from_inside_generated_code_is_refused()
    {
        using var code = new LiveCode();
        VirtualAddress helper = ManagedTarget.Of((delegate* unmanaged<long>)&SwitchFromInside);
        Backend managed = code.Direct.Derive("managed", b => b.Call("t.first", helper, "helper"));
        var a = new Assembler(64);
        var sites = new SiteEmitter(code.Layout);
        a.sub(rsp, 8);
        sites.Emit(a, code.First, clobbers: RegisterSet.All);
        a.add(rsp, 8);
        a.ret();
        CodeBlock block = code.Arena.Emit(a, sites);
        using Executor executor = code.Arena.RegisterExecutor("me");
        using LivePatcher patcher = code.Patcher(managed);
        (s_patcher, s_executor, s_backend) = (patcher, executor, code.Inlined);
        executor.Enter();
        long given = LiveCode.Call(block);
        executor.Leave();
        Assert.Equal(11, given);
        Assert.Equal(DiagnosticCodes.InsideGeneratedCode, s_result.Diagnostics[0].Code);
        Assert.Contains("me", s_result.Diagnostics[0].Message, StringComparison.Ordinal);
        Assert.True(patcher.TrySwitch(code.Inlined.Derive("now", b => b.Inline("t.first", LiveCode.MovOne))).Succeeded);
    }

    [Fact]
    public void A_retired_block_is_refused_and_its_states_say_so()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        byte[] before = block.ToArray();
        code.Arena.Retire(block);
        Assert.Equal(LiveSiteState.Retired, block[0].State);
        Assert.Equal(DiagnosticCodes.BlockRetired, Code(() => patcher.Switch([block[0]], code.Inlined)));
        Assert.Equal(DiagnosticCodes.BlockRetired, Code(() => patcher.Bind(block)));
        Assert.Equal(DiagnosticCodes.BlockRetired, Code(() => code.Arena.Retire(block)));
        Assert.Empty(patcher.Switch(code.Inlined).Outcomes);
        Assert.Equal(before, block.ToArray()); // no executor was ever declared, so it is never reused
    }

    [Fact]
    public void Blocks_and_backends_of_elsewhere_are_refused()
    {
        using var code = new LiveCode();
        using var other = new LiveCode();
        CodeBlock foreign = other.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher();
        Assert.Equal(DiagnosticCodes.BlockRetired, Code(() => patcher.Switch([foreign[0]], code.Direct)));
        Assert.Equal(DiagnosticCodes.WrongLayout, Code(() => patcher.Switch(other.Direct)));
        Assert.Equal(DiagnosticCodes.WrongLayout, Code(() => patcher.Switch(other.First, code.Direct)));
        Assert.Equal(DiagnosticCodes.BlockRetired, Code(() => code.Arena.Retire(foreign)));
    }

    [Fact]
    public void A_disposed_arena_says_so_everywhere()
    {
        var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        LivePatcher patcher = code.Patcher(code.Direct);
        CodeReservation room = code.Arena.Allocate(10);
        code.Dispose();
        code.Dispose();
        Assert.Equal(DiagnosticCodes.ArenaDisposed, Code(() => patcher.Switch(code.Inlined)));
        Assert.Equal(DiagnosticCodes.ArenaDisposed, Code(() => block.ToArray()));
        Assert.Equal(DiagnosticCodes.ArenaDisposed, Code(() => code.EmitFunction(SiteWish.Aligned())));
        Assert.Equal(DiagnosticCodes.ArenaDisposed, Code(() => code.Arena.Allocate(10)));
        Assert.Equal(DiagnosticCodes.ArenaDisposed, Code(() => room.Commit(1, code.Layout, SiteTable.Empty)));
        Assert.Equal(DiagnosticCodes.ArenaDisposed, Code(() => code.Arena.RegisterExecutor()));
        Assert.Equal(DiagnosticCodes.ArenaDisposed, Code(() => code.Arena.Dump(block)));
        Assert.Equal(DiagnosticCodes.ArenaDisposed, Code(() => code.Arena.Reclaim()));
        room.Dispose();
        patcher.Dispose();
    }

    [Fact]
    public void An_arena_is_not_taken_away_from_under_an_executor()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Inlined);
        Executor executor = code.Arena.RegisterExecutor("busy");
        executor.Enter();
        Assert.Equal(DiagnosticCodes.ArenaInUse, Code(code.Arena.Dispose));
        Assert.Equal(DiagnosticCodes.ArenaInUse, Code(executor.Dispose));
        Assert.Equal(1, LiveCode.Call(block));
        executor.Leave();
        executor.Dispose();
    }

    [Fact]
    public void Executors_used_wrongly_say_so()
    {
        using var code = new LiveCode();
        using Executor executor = code.Arena.RegisterExecutor();
        Assert.Equal(DiagnosticCodes.ExecutorMisuse, Code(executor.Leave));
        executor.Enter();
        Exception? elsewhere = null;
        var thread = new Thread(() => elsewhere = Record.Exception(executor.Enter));
        thread.Start();
        thread.Join();
        Assert.Equal(DiagnosticCodes.ExecutorMisuse, Assert.IsType<PatchException>(elsewhere).Diagnostic.Code);
        executor.Leave();
    }

    [Fact]
    public void A_target_that_is_not_code_is_refused_before_anything_is_written()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        foreach (ulong target in (ulong[])[0, 1, (ulong)NativeMemory.Alloc(16)])
        {
            ApplyResult result = patcher.TrySwitch(code.Direct.Derive("bad", b => b.Call("t.first", target, "bad", RegisterSet.Rax)));
            Assert.All(result.Diagnostics, d => Assert.Equal(
                (DiagnosticCodes.TargetNotExecutable, new VirtualAddress(target)), (d.Code, d.Address)));
            Assert.Equal(2, LiveCode.Call(block));
        }
    }

    [Fact]
    public void Only_methods_for_unmanaged_callers_are_managed_targets()
    {
        Assert.Equal(DiagnosticCodes.TargetNotExecutable,
            Code(() => ManagedTarget.Of(typeof(AbuseTests).GetMethod(nameof(Only_methods_for_unmanaged_callers_are_managed_targets))!)));
        var helper = typeof(AbuseTests)
            .GetMethod(nameof(SwitchFromInside), System.Reflection.BindingFlags.NonPublic | System.Reflection.BindingFlags.Static)!;
        Assert.Equal(ManagedTarget.Of((delegate* unmanaged<long>)&SwitchFromInside), ManagedTarget.Of(helper));
    }

    [Fact]
    public void A_body_that_does_not_assemble_fails_the_batch_with_its_own_finding()
    {
        using var code = new LiveCode();
        CodeBlock block = code.EmitFunction(SiteWish.Aligned());
        using LivePatcher patcher = code.Patcher(code.Direct);
        ApplyResult result = patcher.TrySwitch(code.Direct.Derive("bad", b => b.Inline("t.first", static a => a.push(rax))));
        Assert.Equal(DiagnosticCodes.BodyInvalid, result.Diagnostics[0].Code);
        Assert.Equal(2, LiveCode.Call(block));
    }

    [UnmanagedCallersOnly]
    private static long SwitchFromInside()
    {
        s_result = s_patcher!.TrySwitch(s_backend!);
        return 11;
    }

    private static string Code(Action action) => Assert.Throws<PatchException>(action).Diagnostic.Code;

    /// <summary>sub rsp,8; call [first]; nop; nop; add rsp,8; ret; then nops to 64 bytes.</summary>
    private static void WriteFunction(LiveCode code, CodeReservation room)
    {
        room.Span.Fill(0x90);
        ((byte[])[0x48, 0x83, 0xec, 0x08, 0xff, 0x15, 0, 0, 0, 0, 0x90, 0x90, 0x48, 0x83, 0xc4, 0x08, 0xc3]).CopyTo(room.Span);
        VirtualAddress slot = code.Arena.SlotsOf(code.Layout).AddressOf(code.First);
        BitConverter.TryWriteBytes(room.Span[6..], (int)(slot - (room.Address + 10)));
    }
}
