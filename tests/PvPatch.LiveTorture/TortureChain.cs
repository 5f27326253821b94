using System.Diagnostics;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.LiveTorture;

/// <summary>
/// Executors run a ring of blocks chained by jumps, while one thread unlinks, retires and makes anew one block after the other. Each block
/// checks that it was come to from the one before; what is retired is filled with traps before its room is used again.
/// </summary>
internal sealed unsafe class TortureChain : IDisposable
{
    private const int Length = 12;
    private const int Rounds = 200;
    private const int Failed = -1;

    private readonly TortureOptions _options;
    private readonly OpsLayout _layout = OpsLayout.Create(static b => b.Table("link", static t => t.Slot("next", SlotKind.Jump)));
    private readonly CodeArena _arena = CodeArena.Reserve(size: 4 << 20);
    private readonly LivePatcher _patcher;
    private readonly CodeBlock[] _blocks = new CodeBlock[Length];
    private readonly Random _random;
    private volatile bool _stop;
    private volatile string? _fault;
    private long _completed;

    public TortureChain(TortureOptions options)
    {
        _options = options;
        _random = new Random(options.Seed);
        _patcher = new LivePatcher(_arena, _layout);
        var a = new Assembler(64);
        a.ret(); // eax says where the chain ended
        VirtualAddress leave = _arena.Emit(a).Address;
        _patcher.Switch(Backend.Create("chained", _layout, b => b.Jump("link.next", leave)));
        for (int i = 0; i < Length; i++)
        {
            _blocks[i] = Emit(i);
        }

        _patcher.Bind(_blocks);
        _patcher.Link([.. _blocks.Select((b, i) => new SiteLink(b[0], _blocks[(i + 1) % Length].Address))]);
    }

    /// <summary>Runs to the end of the time; the exit code.</summary>
    public int Execute()
    {
        Thread[] threads = [.. Enumerable.Range(0, _options.Executors).Select(n => new Thread(() => Run(n)) { IsBackground = true })];
        Array.ForEach(threads, static t => t.Start());
        long start = Stopwatch.GetTimestamp();
        long renewed = 0;
        long reused = 0;
        var addresses = new HashSet<VirtualAddress>();
        while (_fault is null && IsTime(Stopwatch.GetElapsedTime(start).TotalSeconds, reused))
        {
            int index = 1 + _random.Next(Length - 1); // the first is where executors enter
            CodeBlock old = _blocks[index];
            _patcher.Unlink(SiteScope.LinkedInto(old));
            if (_options.Protocol == Protocol.NoGrace)
            {
                _arena.Memory.Span(old.Address, old.Length).Fill(0xcc);
            }

            _arena.Retire(old);
            _blocks[index] = Emit(index);
            _patcher.Bind(_blocks[index]);
            _patcher.Link(
                [new(_blocks[index - 1][0], _blocks[index].Address), new(_blocks[index][0], _blocks[(index + 1) % Length].Address)]);
            renewed++;
            reused += addresses.Add(_blocks[index].Address) ? 0 : 1;
        }

        _stop = true;
        Array.ForEach(threads, static t => t.Join());
        Console.WriteLine(
            $"chain protocol={_options.Protocol} renewed={renewed} in used room={reused} completed={_completed} used={_arena.Used}");
        Console.WriteLine(_fault is not null ? $"FAULT {_fault}" : _completed == 0 || reused == 0 ? "NOTHING SEEN" : "OK");
        return _fault is not null ? 2 : _completed == 0 || reused == 0 ? 3 : 0;
    }

    /// <summary>Whether to go on; a while longer on a busy machine, until something was seen.</summary>
    private bool IsTime(double seconds, long reused) => seconds < _options.Seconds
        || (_options.Protocol == Protocol.Library && seconds < TortureRun.Patience + _options.Seconds
            && (Volatile.Read(ref _completed) == 0 || reused == 0));

    public void Dispose()
    {
        _patcher.Dispose();
        _arena.Dispose();
    }

    /// <summary>int block(long rounds), eax = its number: the next one's number and on to it; -1 where eax is another.</summary>
    private CodeBlock Emit(int number)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(_layout);
        Label loop = a.CreateLabel();
        Label end = a.CreateLabel();
        if (number == 0)
        {
            a.dec(rdi);
            a.js(end);
        }
        else
        {
            a.cmp(eax, number);
            a.jne(end);
        }

        a.mov(ecx, _random.Next(1, 40)); // so that executors are found everywhere
        a.Label(ref loop);
        a.dec(ecx);
        a.jnz(loop);
        a.mov(eax, (number + 1) % Length);
        sites.Emit(a, _layout[0], _random.Next(6, 16), RegisterSet.None, forwarding: _random.Next(2) == 0);
        a.Label(ref end);
        a.mov(eax, number == 0 ? 0 : Failed);
        a.ret();
        return _arena.Emit(a, sites);
    }

    private void Run(int number)
    {
        using Executor executor = _arena.RegisterExecutor($"executor {number}");
        while (!_stop)
        {
            executor.Enter();
            int ended = ((delegate* unmanaged<long, int>)_blocks[0].Address.Value)(Rounds);
            executor.Leave();
            Interlocked.Add(ref _completed, ended == 0 ? 1 : 0);
            if (ended == Failed)
            {
                _fault = "a block was come to from another than the one before";
                return;
            }
        }
    }
}
