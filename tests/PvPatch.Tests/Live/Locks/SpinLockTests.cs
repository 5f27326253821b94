using System.Runtime.InteropServices;
using PvPatch.Live;
using PvPatch.Locks;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Shared;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Live.Locks;

/// <summary>Spinlocks: what stands at their sites, what their words say, who sleeps and who is woken.</summary>
public sealed class SpinLockTests
{
    public static TheoryData<SpinLockKind> Kinds => [SpinLockKind.Ticket, SpinLockKind.Byte, SpinLockKind.Queued];

    [Theory]
    [InlineData(SpinLockKind.Ticket, "addl $2, 4(%rdi)")]
    [InlineData(SpinLockKind.Byte, "movb $0, (%rdi)")]
    [InlineData(SpinLockKind.Queued, "movb $0, (%rdi)")]
    public void A_native_unlock_is_one_instruction_in_its_site(SpinLockKind kind, string assembly)
    {
        GnuAssembler.RequireTools();
        using var bench = new LockBench(kind);
        byte[] expected = GnuAssembler.Assemble(64, [new AssemblyPiece(0x1000, assembly)])[0];
        byte[] site = bench.Unlock[0].ToArray();
        Assert.Equal(LiveForm.OneInstruction, bench.Unlock[0].Form);
        Assert.Equal(expected, site[^expected.Length..]);
        Assert.All(site[..^expected.Length], static b => Assert.Equal(0x2e, b)); // cs prefixes, which do nothing
        Assert.Equal(LiveForm.Call, bench.Lock[0].Form);
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void A_lock_nobody_contends_for_is_held_between_lock_and_unlock(SpinLockKind kind)
    {
        using var bench = new LockBench(kind);
        foreach (SpinLockMode mode in (SpinLockMode[])[SpinLockMode.Native, SpinLockMode.Paravirtual, SpinLockMode.Native])
        {
            bench.Locks.Switch(mode, LockBench.Quiescent);
            Assert.Equal(mode, bench.Locks.Mode);
            for (uint i = 0; i < 5; i++)
            {
                bench.Word = kind == SpinLockKind.Ticket ? ((ulong)(2 * i) << 32) | (2 * i) : 0;
                bench.Run(bench.Lock);
                Assert.Equal(kind == SpinLockKind.Ticket ? ((ulong)(2 * i) << 32) | (2 * i + 2) : 1, bench.Word);
                bench.Run(bench.Unlock);
                Assert.Equal(kind == SpinLockKind.Ticket ? ((ulong)(2 * i + 2) << 32) | (2 * i + 2) : 0, bench.Word);
            }
        }

        Assert.Equal(0, bench.Locks.WaitCount);
    }

    [Fact]
    public void The_last_ticket_is_followed_by_the_first()
    {
        using var bench = new LockBench(SpinLockKind.Ticket);
        foreach (SpinLockMode mode in Enum.GetValues<SpinLockMode>())
        {
            bench.Locks.Switch(mode, LockBench.Quiescent);
            bench.Word = 0xffff_fffe_ffff_fffe;
            bench.Run(bench.Lock);
            Assert.Equal(0xffff_fffe_0000_0000, bench.Word);
            bench.Run(bench.Unlock);
            Assert.Equal(0UL, bench.Word); // the head's carry goes nowhere
        }
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void A_waiter_sleeps_in_the_host_and_the_unlock_kicks_it(SpinLockKind kind)
    {
        using var bench = new LockBench(kind);
        using Executor holder = bench.Arena.RegisterExecutor("holder");
        bench.Locks.Switch(SpinLockMode.Paravirtual, LockBench.Patient);
        bench.Run(holder, bench.Lock);
        Thread taker = bench.StartTaker();
        LockBench.Until(() => bench.Locks.WaitCount > 0);
        bench.Run(holder, bench.Unlock);
        Assert.True(taker.Join(TimeSpan.FromSeconds(60)));
        LockBench.Until(() => bench.Locks.WaiterCount == 0);
        Assert.True(LockIsFree(kind, bench.Word), $"{bench.Word:x}"); // also: nobody is said to wait any more
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Two_who_sleep_are_both_kicked_in_their_turn(SpinLockKind kind)
    {
        using var bench = new LockBench(kind);
        using Executor holder = bench.Arena.RegisterExecutor("holder");
        bench.Locks.Switch(SpinLockMode.Paravirtual, LockBench.Patient);
        bench.Run(holder, bench.Lock);
        Thread[] takers = [bench.StartTaker("first"), bench.StartTaker("second"), bench.StartTaker("third")];
        LockBench.Until(() => bench.Locks.WaiterCount == 3);
        bench.Run(holder, bench.Unlock);
        Assert.All(takers, static t => Assert.True(t.Join(TimeSpan.FromSeconds(60))));
        Assert.True(LockIsFree(kind, bench.Word), $"{bench.Word:x}");
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void A_sleeper_is_woken_by_the_switch_and_let_on_by_the_other_modes_unlock(SpinLockKind kind)
    {
        using var bench = new LockBench(kind);
        using Executor holder = bench.Arena.RegisterExecutor("holder");
        bench.Locks.Switch(SpinLockMode.Paravirtual, LockBench.Patient);
        bench.Run(holder, bench.Lock);
        Thread taker = bench.StartTaker();
        LockBench.Until(() => bench.Locks.WaitCount > 0);
        bench.Locks.Switch(SpinLockMode.Native, LockBench.Patient);
        Assert.Equal(0, bench.Locks.WaiterCount); // said to be so, and it is
        bench.Run(holder, bench.Unlock); // kicks nobody
        Assert.True(taker.Join(TimeSpan.FromSeconds(60)));

        // What the sleeper left in the word of a ticket lock means nothing natively, and is gone when it is paravirtual again.
        bench.Run(holder, bench.Lock);
        bench.Run(holder, bench.Unlock);
        bench.Locks.Switch(SpinLockMode.Paravirtual, LockBench.Patient);
        bench.Run(holder, bench.Lock);
        bench.Run(holder, bench.Unlock);
        Assert.True(LockIsFree(kind, bench.Word), $"{bench.Word:x}");
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public async Task Who_waits_natively_is_let_on_by_a_paravirtual_unlock(SpinLockKind kind)
    {
        Requirement.TwoProcessors();
        using var bench = new LockBench(kind);
        using Executor holder = bench.Arena.RegisterExecutor("holder");
        bench.Run(holder, bench.Lock);
        ulong held = bench.Word;
        Thread taker = bench.StartTaker();
        LockBench.Until(() => kind == SpinLockKind.Byte ? bench.Arena.Executors.Inside() is not null : bench.Word != held);

        // The taker spins inside and does not leave, so nobody may sleep yet: the mode stays what it was.
        Assert.False(bench.Locks.TrySwitch(kind, SpinLockMode.Paravirtual, new() { Timeout = TimeSpan.FromMilliseconds(50) },
            out ApplyResult result));
        Assert.Equal(ApplyStatus.RolledBack, result.Status);
        Assert.Equal(DiagnosticCodes.GraceTimeout, result.Diagnostics[0].Code);
        Assert.Equal(SpinLockMode.Native, bench.Locks.Mode);
        Assert.Equal(LiveForm.OneInstruction, bench.Unlock[0].Form);

        Task<ApplyResult> switched = Task.Run(() => bench.Locks.Switch(SpinLockMode.Paravirtual, LockBench.Patient));
        LockBench.Until(() => bench.Unlock[0].Form == LiveForm.Call);
        Assert.False(bench.Locks.MayWait);
        bench.Run(holder, bench.Unlock);
        Assert.True(taker.Join(TimeSpan.FromSeconds(60)));
        Assert.Equal(ApplyStatus.Applied, (await switched).Status);
        Assert.True(bench.Locks.MayWait);
    }

    [Fact]
    public void Locks_become_another_kind_at_quiescence_where_all_are_free()
    {
        using var bench = new LockBench(SpinLockKind.Ticket);
        using Executor executor = bench.Arena.RegisterExecutor();
        bench.Locks.Add(bench.WordAddress);
        bench.Run(executor, bench.Lock);
        Assert.Equal(DiagnosticCodes.LocksInUse, Refused(bench, SpinLockKind.Byte, new()).Code); // live
        PatchDiagnostic held = Refused(bench, SpinLockKind.Byte, LockBench.Quiescent);
        Assert.Equal((DiagnosticCodes.LocksInUse, bench.WordAddress), (held.Code, held.Address));
        Assert.Equal("0x0000000000000002", held.Found);
        bench.Run(executor, bench.Unlock);
        Assert.Equal(0x0000_0002_0000_0002UL, bench.Word);
        foreach (SpinLockKind kind in (SpinLockKind[])[SpinLockKind.Queued, SpinLockKind.Ticket, SpinLockKind.Byte])
        {
            bench.Locks.Switch(kind, SpinLockMode.Paravirtual, LockBench.Quiescent);
            Assert.Equal((kind, SpinLockMode.Paravirtual, 0UL), (bench.Locks.Kind, bench.Locks.Mode, bench.Word));
            bench.Run(executor, bench.Lock);
            Assert.NotEqual(0UL, bench.Word);
            bench.Run(executor, bench.Unlock);
        }
    }

    [Fact]
    public void Words_that_are_no_free_locks_are_refused()
    {
        using var bench = new LockBench(SpinLockKind.Byte);
        bench.Locks.Add(bench.WordAddress);
        foreach (VirtualAddress wrong in (VirtualAddress[])[0, bench.WordAddress, bench.WordAddress + 4])
        {
            Assert.Equal(
                DiagnosticCodes.LockWord, Assert.Throws<PatchException>(() => bench.Locks.Add(wrong)).Diagnostic.Code);
        }

        Assert.True(bench.Locks.Remove(bench.WordAddress));
        Assert.False(bench.Locks.Remove(bench.WordAddress));
        bench.Word = 1;
        PatchDiagnostic held = Assert.Throws<PatchException>(() => bench.Locks.Add(bench.WordAddress)).Diagnostic;
        Assert.Equal(bench.WordAddress, held.Address);
    }

    [Fact]
    public void Without_executors_nobody_is_let_sleep_by_a_live_switch()
    {
        using var bench = new LockBench(SpinLockKind.Ticket);
        Assert.False(bench.Locks.TrySwitch(SpinLockKind.Ticket, SpinLockMode.Paravirtual, null, out ApplyResult result));
        Assert.Equal((ApplyStatus.Refused, DiagnosticCodes.LockWaiters), (result.Status, result.Diagnostics[0].Code));
        Assert.Equal(LiveForm.OneInstruction, bench.Unlock[0].Form);
    }

    [Fact]
    public void A_switch_from_inside_is_refused()
    {
        using var bench = new LockBench(SpinLockKind.Ticket);
        using Executor executor = bench.Arena.RegisterExecutor();
        executor.Enter();
        Assert.Equal(DiagnosticCodes.InsideGeneratedCode,
            Assert.Throws<PatchException>(() => bench.Locks.Switch(SpinLockMode.Paravirtual)).Diagnostic.Code);
        executor.Leave();
    }

    [Fact]
    public void A_host_that_does_not_wake_its_waiters_stops_the_switch_before_anything_is_written()
    {
        using var bench = new LockBench(SpinLockKind.Ticket, DeafHost.Create());
        using Executor holder = bench.Arena.RegisterExecutor("holder");
        bench.Locks.Switch(SpinLockMode.Paravirtual, LockBench.Patient);
        bench.Run(holder, bench.Lock);
        Thread taker = bench.StartTaker();
        LockBench.Until(() => bench.Locks.WaiterCount == 1);
        byte[] before = bench.Unlock[0].ToArray();
        Assert.False(bench.Locks.TrySwitch(SpinLockKind.Ticket, SpinLockMode.Native, new() { Timeout = TimeSpan.FromMilliseconds(50) },
            out ApplyResult result));
        Assert.Equal((ApplyStatus.Refused, DiagnosticCodes.LockWaiters), (result.Status, result.Diagnostics[0].Code));
        Assert.Equal((SpinLockMode.Paravirtual, true), (bench.Locks.Mode, bench.Locks.MayWait));
        Assert.Equal(before, bench.Unlock[0].ToArray());
        bench.Run(holder, bench.Unlock);
        DeafHost.Open();
        Assert.True(taker.Join(TimeSpan.FromSeconds(60)));
    }

    [Fact]
    public void Kinds_and_modes_there_are_not_are_refused()
    {
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        Assert.Throws<ArgumentOutOfRangeException>(() => new SpinLocks(arena, (SpinLockKind)3));
        Assert.Throws<ArgumentOutOfRangeException>(() => new SpinLocks(arena, 0, options: new() { Spins = 0 }));
        using var locks = new SpinLocks(arena, SpinLockKind.Byte);
        Assert.Throws<ArgumentOutOfRangeException>(() => locks.Switch((SpinLockMode)2));
        Assert.Throws<ArgumentOutOfRangeException>(() => locks.Switch((SpinLockKind)(-1), SpinLockMode.Native));
        Assert.Throws<ArgumentException>(() => new SpinLockHost("none", Operation.Nop, Operation.Nop, static () => { }));
    }

    private static bool LockIsFree(SpinLockKind kind, ulong word) =>
        kind == SpinLockKind.Ticket ? (uint)word == (uint)(word >> 32) : word == 0;

    private static PatchDiagnostic Refused(LockBench bench, SpinLockKind kind, SwitchOptions options)
    {
        Assert.False(bench.Locks.TrySwitch(kind, SpinLockMode.Native, options, out ApplyResult result));
        Assert.Equal(ApplyStatus.Refused, result.Status);
        return result.Diagnostics[0];
    }

    /// <summary>A host whose wait comes back when it is opened, and not before.</summary>
    private static unsafe class DeafHost
    {
        private static readonly ManualResetEventSlim s_open = new();

        public static SpinLockHost Create() => new(
            "deaf",
            Operation.Call(ManagedTarget.Of((delegate* unmanaged<ulong, uint, uint, void>)&Wait)).CalledBy(SpinLockHost.OfSystem),
            Operation.Call(ManagedTarget.Of((delegate* unmanaged<ulong, uint, void>)&Kick)).CalledBy(SpinLockHost.OfSystem),
            static () => { });

        public static void Open() => s_open.Set();

        [UnmanagedCallersOnly]
        private static void Wait(ulong address, uint value, uint key) => s_open.Wait();

        [UnmanagedCallersOnly]
        private static void Kick(ulong address, uint key)
        {
        }
    }
}
