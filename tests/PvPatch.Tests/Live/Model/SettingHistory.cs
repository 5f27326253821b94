using System.Diagnostics;
using Iced.Intel;
using PvPatch.Live;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Model;

/// <summary>
/// Runs programs of operations on settings, each on a thread of its own, then looks for an order of the operations, no earlier one behind a
/// later one, in which the sequential model gives the same results and the same end.
/// </summary>
internal sealed unsafe class SettingHistory : IDisposable
{
    private readonly CodeArena _arena = CodeArena.Reserve(size: 1 << 20);
    private readonly LivePatcher _live;
    private readonly StaticKey[] _keys = [new("first"), new("second")];
    private readonly MultiBranch _branch = new("mode", SettingModel.Ways);
    private readonly StaticCall _call = new("call");
    private readonly CodeBlock[] _targets;
    private readonly Dictionary<string, CodeBlock> _blocks = [];
    private readonly List<SettingEvent>[] _events;

    public SettingHistory(int threads)
    {
        _live = new LivePatcher(_arena);
        _targets = [.. Enumerable.Range(0, SettingModel.Targets).Select(i => Helper(i + 1))];
        _events = [.. Enumerable.Range(0, threads + 2).Select(static _ => new List<SettingEvent>())];
    }

    /// <summary>Runs everything; throws where there is no such order.</summary>
    public void Check(SettingOp[][] programs)
    {
        RunAll(0, "i", [new(SettingVerb.Emit), new(SettingVerb.Emit)]);
        using var start = new Barrier(programs.Length);
        Thread[] threads = [.. programs.Select((program, i) => new Thread(() =>
        {
            start.SignalAndWait();
            RunAll(i + 1, $"{i}", program);
        }))];
        Array.ForEach(threads, static t => t.Start());
        Array.ForEach(threads, static t => t.Join());
        RunAll(programs.Length + 1, "e", [new(SettingVerb.Emit), new(SettingVerb.Observe)]);
        if (!Search(new SettingModel(), new int[_events.Length]))
        {
            throw new InvalidOperationException(
                "no order of these gives these results\n" + string.Join('\n', _events.Select(static e => string.Join(", ", e))));
        }
    }

    public void Dispose()
    {
        _live.Dispose();
        _arena.Dispose();
    }

    private void RunAll(int thread, string name, SettingOp[] ops)
    {
        string own = "i.0";
        for (int i = 0; i < ops.Length; i++)
        {
            SettingOp op = ops[i];
            string block = op.Verb == SettingVerb.Emit ? $"{name}.{i}" : op.Argument % 2 == 0 ? own : "i.1";
            long start = Stopwatch.GetTimestamp();
            string result = Run(op, block);
            long end = Stopwatch.GetTimestamp();
            own = op.Verb == SettingVerb.Emit ? block : own;
            _events[thread].Add(new SettingEvent(op, block, start, end, result));
        }
    }

    private string Run(SettingOp op, string name)
    {
        try
        {
            switch (op.Verb)
            {
                case SettingVerb.Observe:
                    return Observe();
                case SettingVerb.Emit:
                    CodeBlock made = Emit();
                    lock (_blocks)
                    {
                        _blocks.Add(name, made);
                    }

                    break;
                case SettingVerb.Retire:
                    CodeBlock given;
                    lock (_blocks)
                    {
                        given = _blocks[name];
                    }

                    _arena.Retire(given);
                    break;
                case SettingVerb.RetireTarget:
                    _arena.Retire(_targets[op.Argument % SettingModel.Targets]);
                    break;
                case SettingVerb.Reclaim:
                    _arena.Reclaim();
                    break;
                case SettingVerb.DisposePatcher:
                    _live.Dispose();
                    break;
                default:
                    _live.Apply(c => Change(c, op), new SwitchOptions { WaitForOther = true });
                    break;
            }

            return SettingModel.Applied;
        }
        catch (PatchException e)
        {
            return e.Diagnostic.Code;
        }
    }

    private void Change(LiveChanges c, SettingOp op)
    {
        _ = op.Verb switch
        {
            SettingVerb.Enable => c.Enable(_keys[op.Argument % SettingModel.Keys]),
            SettingVerb.Disable => c.Disable(_keys[op.Argument % SettingModel.Keys]),
            SettingVerb.Set => Set(),
            SettingVerb.Target => Target(),
            _ => (c.Enable(_keys[op.Argument % SettingModel.Keys]), Set(), Target()).Item1,
        };

        LiveChanges Set() => c.Set(_branch, op.Argument % (SettingModel.Ways + 1) is > 0 and int way ? way - 1 : null);

        LiveChanges Target() => (op.Argument % (SettingModel.Targets + 2)) switch
        {
            < SettingModel.Targets and int target => c.Target(_call, _targets[target].Address),
            SettingModel.Targets => c.Target(_call, null),
            _ => c.ReturnZero(_call),
        };
    }

    private string Observe()
    {
        int target = _call.ReturnsZero ? SettingModel.Targets + 1
            : _call.Target is VirtualAddress address ? Array.FindIndex(_targets, t => t.Address == address) : SettingModel.Targets;
        int[] counts = [.. _keys.Select(static k => k.Count)];
        string values = SettingModel.Show(counts, _branch.Way ?? -1, target, new Dictionary<string, bool>());
        return values + string.Join(", ", _blocks.OrderBy(static b => b.Key, StringComparer.Ordinal).Select(static b =>
        {
            int seen = b.Value.IsRetired ? 0 : ((delegate* unmanaged<int>)b.Value.Address.Value)();
            return $"{b.Key} {(b.Value.IsRetired ? "gone" : SettingModel.Seen(seen & 0xf, seen >> 4 & 0xf, seen >> 8 & 0xf, seen >> 12))}";
        }));
    }

    /// <summary>int f(): what a key's site, one of both keys, a branch and a call say, four bits each, the first lowest.</summary>
    private CodeBlock Emit()
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        a.push(rbx);
        a.xor(ebx, ebx);
        Way(a, 2, 0, labels => sites.Branch(a, _keys[0], labels[1], length: 2));
        Way(a, 4, 4, labels => sites.Branch(a, _keys, labels));
        Way(a, SettingModel.Ways + 1, 8, labels => sites.Branch(a, _branch, labels[1..]));
        a.mov(eax, 7);
        sites.Call(a, _call);
        a.shl(eax, 12);
        a.or(eax, ebx);
        a.pop(rbx);
        a.ret();
        return _arena.Emit(a, sites);
    }

    private static void Way(Assembler a, int ways, byte shift, Action<Label[]> branch)
    {
        Label over = a.CreateLabel();
        Label[] labels = [.. Enumerable.Range(0, ways).Select(i => i == 0 ? default : a.CreateLabel())];
        branch(labels);
        for (int i = 1; i < ways; i++)
        {
            a.jmp(over);
            a.Label(ref labels[i]);
            a.or(ebx, i << shift);
        }

        a.Label(ref over);
    }

    private CodeBlock Helper(int result)
    {
        var a = new Assembler(64);
        a.mov(eax, result);
        a.ret();
        return _arena.Emit(a);
    }

    private bool Search(SettingModel state, int[] next)
    {
        bool any = false;
        for (int thread = 0; thread < next.Length; thread++)
        {
            if (next[thread] == _events[thread].Count)
            {
                continue;
            }

            any = true;
            SettingEvent candidate = _events[thread][next[thread]];
            bool isBehind = false;
            for (int other = 0; other < next.Length; other++)
            {
                isBehind |= next[other] < _events[other].Count && _events[other][next[other]].End < candidate.Start;
            }

            SettingModel after = state.Clone();
            if (!isBehind && after.Step(candidate))
            {
                next[thread]++;
                if (Search(after, next))
                {
                    return true;
                }

                next[thread]--;
            }
        }

        return !any;
    }
}
