using System.Runtime.CompilerServices;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Locks;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Locks;

/// <summary>Spinlocks in an arena, one lock's word, and functions of one site each.</summary>
internal sealed unsafe class LockBench : IDisposable
{
    private readonly ulong[] _memory = GC.AllocateArray<ulong>(16, pinned: true);

    public LockBench(SpinLockKind kind, SpinLockHost? host = null, bool check = false, int spins = 10)
    {
        Arena = CodeArena.Reserve(size: 1 << 20);
        Locks = new SpinLocks(Arena, kind, host, new() { Check = check, Spins = spins });
        Lock = Emit(Locks.Lock);
        Unlock = Emit(Locks.Unlock);
    }

    public CodeArena Arena { get; }

    public SpinLocks Locks { get; }

    /// <summary>void lock(word)</summary>
    public CodeBlock Lock { get; }

    /// <summary>void unlock(word)</summary>
    public CodeBlock Unlock { get; }

    public VirtualAddress WordAddress => (ulong)(nint)Unsafe.AsPointer(ref _memory[8]);

    public ulong Word
    {
        get => Volatile.Read(ref _memory[8]);
        set => Volatile.Write(ref _memory[8], value);
    }

    public static SwitchOptions Quiescent { get; } = new() { Mode = SwitchMode.Quiescent, Timeout = TimeSpan.FromSeconds(60) };

    public static SwitchOptions Patient { get; } = new() { Timeout = TimeSpan.FromSeconds(60) };

    /// <summary>Runs one of the functions on the lock.</summary>
    public void Run(CodeBlock block) => ((delegate* unmanaged<ulong, void>)block.Address.Value)(WordAddress.Value);

    /// <summary>Runs one of the functions as an executor.</summary>
    public void Run(Executor executor, CodeBlock block)
    {
        executor.Enter();
        Run(block);
        executor.Leave();
    }

    /// <summary>A thread that takes the lock and gives it back, as an executor of its own.</summary>
    public Thread StartTaker(string name = "taker")
    {
        var thread = new Thread(() =>
        {
            using Executor executor = Arena.RegisterExecutor(name);
            Run(executor, Lock);
            Run(executor, Unlock);
        })
        { IsBackground = true };
        thread.Start();
        return thread;
    }

    public static void Until(Func<bool> holds) =>
        Assert.True(SpinWait.SpinUntil(holds, TimeSpan.FromSeconds(60)), "it does not come to be in a minute");

    public void Dispose()
    {
        Locks.Dispose();
        Arena.Dispose();
    }

    private CodeBlock Emit(PvPatch.Mechanisms.OpSlot slot)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(Locks.Layout);
        a.sub(rsp, 8);
        sites.Emit(a, slot);
        a.add(rsp, 8);
        a.ret();
        CodeBlock block = Arena.Emit(a, sites);
        Locks.Bind(block);
        return block;
    }
}
