using Iced.Intel;
using PvPatch.Live;
using PvPatch.Locks;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Locks;

/// <summary>What checked spinlocks find, and that it is not done.</summary>
public sealed class CheckedLockTests
{
    [Theory]
    [MemberData(nameof(SpinLockTests.Kinds), MemberType = typeof(SpinLockTests))]
    public void A_lock_released_twice_names_both_places_and_is_released_once(SpinLockKind kind)
    {
        using var bench = new LockBench(kind, check: true);
        using Executor executor = bench.Arena.RegisterExecutor("cpu 0");
        bench.Run(executor, bench.Lock);
        bench.Run(executor, bench.Unlock);
        ulong free = bench.Word;
        Assert.Empty(bench.Locks.Misuses);
        bench.Run(executor, bench.Unlock);
        Assert.Equal(free, bench.Word);
        PatchDiagnostic found = Assert.Single(bench.Locks.Misuses);
        Assert.Equal((DiagnosticCodes.LockMisuse, bench.Unlock[0].Address), (found.Code, found.Address));
        Assert.Equal($"the lock at {bench.WordAddress} is released by executor cpu 0, which does not hold it", found.Message);
        Assert.Equal($"free, released by executor cpu 0 at {bench.Unlock[0].Address}", found.Found);
        Assert.Equal("held by executor cpu 0", found.Expected);
        Assert.StartsWith("lock.spin_unlock at +0x", found.Source, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(SpinLockMode.Native)]
    [InlineData(SpinLockMode.Paravirtual)]
    public void A_lock_released_by_another_processor_stays_held(SpinLockMode mode)
    {
        using var bench = new LockBench(SpinLockKind.Ticket, check: true);
        bench.Locks.Switch(mode, LockBench.Quiescent);
        using Executor first = bench.Arena.RegisterExecutor("cpu 0");
        using Executor second = bench.Arena.RegisterExecutor("cpu 1");
        bench.Run(first, bench.Lock);
        ulong held = bench.Word;
        bench.Run(second, bench.Unlock);
        Assert.Equal(held, bench.Word);
        PatchDiagnostic found = Assert.Single(bench.Locks.Misuses);
        Assert.Equal($"held by executor cpu 0 since {bench.Lock[0].Address}", found.Found);
        bench.Run(first, bench.Unlock);
        Assert.NotEqual(held, bench.Word);
        Assert.Equal(1, bench.Locks.MisuseCount);
    }

    [Fact]
    public void A_lock_that_was_never_taken_is_not_released()
    {
        using var bench = new LockBench(SpinLockKind.Byte, check: true);
        bench.Word = 1;
        bench.Run(bench.Unlock); // without an executor it is the thread that counts
        Assert.Equal(1UL, bench.Word);
        PatchDiagnostic found = Assert.Single(bench.Locks.Misuses);
        Assert.Equal("never taken", found.Found);
        Assert.Contains($"thread {Environment.CurrentManagedThreadId}", found.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_lock_taken_by_its_holder_once_more_is_told_of_before_it_waits_for_itself()
    {
        using var bench = new LockBench(SpinLockKind.Byte, check: true);
        var thread = new Thread(() =>
        {
            using Executor executor = bench.Arena.RegisterExecutor("cpu 0");
            bench.Run(executor, bench.Lock);
            bench.Run(executor, bench.Lock);
            bench.Run(executor, bench.Unlock);
        })
        { IsBackground = true };
        thread.Start();
        LockBench.Until(() => bench.Locks.MisuseCount == 1);
        PatchDiagnostic found = Assert.Single(bench.Locks.Misuses);
        Assert.Equal(bench.Lock[0].Address, found.Address);
        Assert.Equal($"held since {bench.Lock[0].Address}", found.Found);
        bench.Word = 0; // so that it comes to its end
        Assert.True(thread.Join(TimeSpan.FromSeconds(60)));
    }

    [Fact]
    public void A_site_that_allows_nothing_is_named_too_and_keeps_its_registers()
    {
        using var bench = new LockBench(SpinLockKind.Queued, check: true);
        var a = new Assembler(64);
        var sites = new SiteEmitter(bench.Locks.Layout);
        Label wrong = a.CreateLabel();
        a.sub(rsp, 8);
        a.mov(rax, rdi);
        sites.Emit(a, bench.Locks.Unlock, clobbers: RegisterSet.None);
        a.cmp(rax, rdi);
        a.jne(wrong);
        a.mov(eax, 7);
        a.Label(ref wrong);
        a.add(rsp, 8);
        a.ret();
        CodeBlock block = bench.Arena.Emit(a, sites);
        bench.Locks.Bind(block);
        Assert.Equal(7, LiveCode.Call(block, (long)bench.WordAddress.Value));
        Assert.Equal(block[0].Address, Assert.Single(bench.Locks.Misuses).Address);
    }

    [Fact]
    public void What_is_found_too_often_is_counted()
    {
        using var bench = new LockBench(SpinLockKind.Byte, check: true);
        for (int i = 0; i < 150; i++)
        {
            bench.Run(bench.Unlock);
        }

        Assert.Equal(150, bench.Locks.MisuseCount);
        Assert.Equal(100, bench.Locks.Misuses.Count);
    }
}
