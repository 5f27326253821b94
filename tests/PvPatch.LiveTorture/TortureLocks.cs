using System.Diagnostics;
using System.Runtime.CompilerServices;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Locks;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.LiveTorture;

/// <summary>
/// Executors contend for a few spinlocks in generated code, while one thread switches their mode, and their kind at quiescence. What a lock
/// guards is checked inside (nobody else is there) and at the end (nothing that was counted is lost); that everybody comes on is watched.
/// </summary>
internal sealed unsafe class TortureLocks : IDisposable
{
    private const int LockCount = 2;
    private const int Stride = 128; // a lock's word at 0, and what it guards:
    private const int Counter = 64;
    private const int Owner = 72;
    private const int Rounds = 200;
    private const int KindEvery = 4;

    private readonly TortureOptions _options;
    private readonly CodeArena _arena = CodeArena.Reserve(size: 4 << 20);
    private readonly SpinLocks _locks;
    private readonly CodeBlock _block;
    private readonly byte[] _memory = GC.AllocateArray<byte>((LockCount + 1) * Stride, pinned: true);
    private readonly long[] _completed;
    private readonly Random _random;
    private volatile bool _stop;
    private volatile string? _fault;
    private long _switches;
    private long _kinds;

    public TortureLocks(TortureOptions options)
    {
        _options = options;
        _random = new Random(options.Seed);
        _completed = new long[options.Executors * 16]; // apart from each other
        _locks = new SpinLocks(
            _arena, options.Kind ?? SpinLockKind.Ticket, options.Protocol == Protocol.LostKick ? ForgetfulHost.Create() : null,
            new() { Spins = _random.Next(1, 20) });
        _block = EmitWork();
        for (int i = 0; i < LockCount; i++)
        {
            _locks.Add(Word(i));
        }
    }

    private ulong Base => (ulong)(nint)Unsafe.AsPointer(ref _memory[0]) + Stride - 1 & ~(ulong)(Stride - 1);

    /// <summary>Runs to the end of the time; the exit code.</summary>
    public int Execute()
    {
        Thread[] threads = [.. Enumerable.Range(0, _options.Executors).Select(n => new Thread(() => Run(n)) { IsBackground = true })];
        Array.ForEach(threads, static t => t.Start());
        while (!_arena.Executors.IsTracking)
        {
            Thread.Yield();
        }

        Begin();
        TimeSpan patience = TimeSpan.FromSeconds(_options.Protocol == Protocol.Library ? 60 : 5);
        long start = Stopwatch.GetTimestamp();
        long[] seen = new long[_options.Executors];
        long[] since = [.. seen.Select(_ => start)];
        while (_fault is null && Stopwatch.GetElapsedTime(start).TotalSeconds < _options.Seconds)
        {
            Switch();
            Thread.Sleep(TimeSpan.FromMicroseconds(_options.PauseMicroseconds == 0 ? 1000 : _options.PauseMicroseconds));
            for (int i = 0; i < seen.Length; i++)
            {
                long completed = Volatile.Read(ref _completed[i * 16]);
                if (completed != seen[i])
                {
                    (seen[i], since[i]) = (completed, Stopwatch.GetTimestamp());
                }
                else if (Stopwatch.GetElapsedTime(since[i]) > patience)
                {
                    _fault = $"executor {i} makes no progress; {_locks.WaiterCount} wait in the host";
                }
            }
        }

        return Report(threads, patience);
    }

    public void Dispose()
    {
        if (_fault is null)
        {
            _locks.Dispose();
            _arena.Dispose();
        }
    }

    private int Report(Thread[] threads, TimeSpan patience)
    {
        _stop = true;
        foreach (Thread thread in threads)
        {
            if (_fault is null && !thread.Join(patience))
            {
                _fault = "an executor does not come to its end";
            }
        }

        long counted = Enumerable.Range(0, LockCount).Sum(i => *(long*)(Word(i) + Counter));
        long completed = Enumerable.Range(0, _options.Executors).Sum(i => _completed[i * 16]);
        if (_fault is null && counted != completed)
        {
            _fault = $"{completed} times under a lock, counted {counted}";
        }

        Console.WriteLine(
            $"locks kind={_options.Kind?.ToString() ?? "all"} protocol={_options.Protocol} switches={_switches} kinds={_kinds} "
                + $"completed={completed} waits={_locks.WaitCount}");
        bool nothing = completed == 0 || _switches == 0 || (_options.Executors > 1 && _locks.WaitCount == 0);
        Console.WriteLine(_fault is not null ? $"FAULT {_fault}" : nothing ? "NOTHING SEEN" : "OK");
        return _fault is not null ? 2 : nothing ? 3 : 0;
    }

    /// <summary>What a control does once, and no more: it must not be hidden by switches, which wake everybody.</summary>
    private void Begin()
    {
        switch (_options.Protocol)
        {
            case Protocol.TornUnlock:
                _locks.Patcher.Switch(_locks.Functions[SpinLockKind.Ticket, SpinLockMode.Native].Derive(
                    "torn", static b => b.Inline("lock.spin_unlock", WriteTornUnlock)));
                break;
            case Protocol.LostKick or Protocol.NoDrain:
                _locks.Switch(SpinLockMode.Paravirtual, new() { Timeout = TimeSpan.FromSeconds(30) });
                break;
        }
    }

    private void Switch()
    {
        _switches++;
        if (_options.Protocol is Protocol.TornUnlock or Protocol.LostKick)
        {
            return;
        }

        SpinLockMode mode = _locks.Mode == SpinLockMode.Native ? SpinLockMode.Paravirtual : SpinLockMode.Native;
        if (_options.Protocol == Protocol.NoDrain)
        {
            // Sites are switched as if nobody slept: an unlock of the other mode kicks nobody.
            _locks.Patcher.Switch(
                _locks.Functions[_locks.Kind, _switches % 2 == 0 ? SpinLockMode.Paravirtual : SpinLockMode.Native]);
            return;
        }

        var options = new SwitchOptions { Timeout = TimeSpan.FromSeconds(60) };
        if (_options.Kind is null && _switches % KindEvery == 1)
        {
            _kinds++;
            _locks.Switch((SpinLockKind)_random.Next(3), mode, options with { Mode = SwitchMode.Quiescent });
            return;
        }

        _locks.Switch(mode, options);
    }

    private ulong Word(int index) => Base + (ulong)(index * Stride);

    /// <summary><c>add [rdi+4],2</c> of a ticket lock, written as if nobody took a ticket meanwhile.</summary>
    private static void WriteTornUnlock(Assembler a)
    {
        a.push(rcx);
        a.mov(ecx, 2);
        a.shl(rcx, 32);
        a.mov(rax, __qword_ptr[rdi]);
        a.add(rax, rcx);
        a.pause();
        a.mov(__qword_ptr[rdi], rax);
        a.pop(rcx);
    }

    /// <summary>int work(byte* locks, long rounds, long id): 0, or bits that say what was wrong.</summary>
    private CodeBlock EmitWork()
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(_locks.Layout);
        Label loop = a.CreateLabel();
        Label delay = a.CreateLabel();
        a.push(rbx);
        a.push(rbp);
        a.push(r12);
        a.push(r13);
        a.push(r14);
        a.push(r15);
        a.sub(rsp, 8);
        a.mov(rbx, rdi);
        a.mov(r12, rsi);
        a.mov(r13, rdx);
        a.mov(r14, rdx);
        a.xor(ebp, ebp);
        a.Label(ref loop);
        a.imul(r14d, r14d, 1103515245);
        a.add(r14d, 12345);
        a.mov(eax, r14d);
        a.shr(eax, 16);
        a.and(eax, LockCount - 1);
        a.imul(eax, eax, Stride);
        a.lea(r15, __[rbx + rax]);
        EmitChecked(a, sites, _locks.Lock);

        // Nobody else is here.
        Require(a, 1, () => a.cmp(__qword_ptr[r15 + Owner], 0));
        a.mov(__qword_ptr[r15 + Owner], r13);
        a.mov(rax, __qword_ptr[r15 + Counter]);
        a.mov(ecx, r14d);
        a.shr(ecx, 8);
        a.and(ecx, 31);
        a.inc(ecx);
        a.Label(ref delay);
        a.dec(ecx);
        a.jne(delay);
        a.inc(rax);
        Require(a, 1, () => a.cmp(__qword_ptr[r15 + Owner], r13));
        if (_options.Protocol == Protocol.EarlyUnlock)
        {
            a.mov(__qword_ptr[r15 + Owner], 0);
            a.push(rax);
            a.push(rax);
            EmitChecked(a, sites, _locks.Unlock);
            a.pop(rax);
            a.pop(rax);
            a.mov(__qword_ptr[r15 + Counter], rax);
        }
        else
        {
            a.mov(__qword_ptr[r15 + Counter], rax);
            a.mov(__qword_ptr[r15 + Owner], 0);
            EmitChecked(a, sites, _locks.Unlock);
        }

        a.dec(r12);
        a.jne(loop);
        a.mov(eax, ebp);
        a.add(rsp, 8);
        a.pop(r15);
        a.pop(r14);
        a.pop(r13);
        a.pop(r12);
        a.pop(rbp);
        a.pop(rbx);
        a.ret();
        CodeBlock block = _arena.Emit(a, sites);
        _locks.Bind(block);
        return block;
    }

    /// <summary>A site, with rdi the lock, and the check that all but rax and flags is kept.</summary>
    private void EmitChecked(Assembler a, SiteEmitter sites, OpSlot slot)
    {
        AssemblerRegister64[] kept = [rcx, rdx, rsi, r8, r9, r10, r11];
        a.mov(rdi, r15);
        a.movq(xmm0, r13);
        a.movq(xmm9, r15);
        foreach (AssemblerRegister64 register in kept)
        {
            a.lea(register, __[r13 + (int)register.Value]);
        }

        sites.Emit(a, slot, _random.Next(6, 12), forwarding: false);
        foreach (AssemblerRegister64 register in kept)
        {
            a.lea(rax, __[r13 + (int)register.Value]);
            Require(a, 2, () => a.cmp(register, rax));
        }

        Require(a, 2, () => a.cmp(rdi, r15));
        a.movq(rax, xmm0);
        Require(a, 4, () => a.cmp(rax, r13));
        a.movq(rax, xmm9);
        Require(a, 4, () => a.cmp(rax, r15));
    }

    private static void Require(Assembler a, int bit, Action compare)
    {
        Label holds = a.CreateLabel();
        compare();
        a.je(holds);
        a.or(ebp, bit);
        a.Label(ref holds);
        a.nop();
    }

    private void Run(int number)
    {
        using Executor executor = _arena.RegisterExecutor($"executor {number}");
        var work = (delegate* unmanaged<ulong, long, long, int>)_block.Address.Value;
        while (!_stop)
        {
            executor.Enter();
            int wrong = work(Base, Rounds, number + 1);
            executor.Leave();
            Volatile.Write(ref _completed[number * 16], _completed[number * 16] + Rounds);
            if (wrong != 0)
            {
                _fault = (wrong & 1) != 0 ? "two executors held one lock" : $"a register was not kept ({wrong})";
                return;
            }
        }
    }
}
