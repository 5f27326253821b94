using System.Diagnostics;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Model;

/// <summary>
/// Runs programs of operations on settings, each on a thread of its own, then looks for an order of the operations, no earlier one behind a
/// later one, in which the sequential model gives the same results and the same end.
/// </summary>
internal sealed unsafe class SettingHistory : IDisposable
{
    private static readonly CallConvention s_elsewhere = CallConvention.Create(
        "elsewhere", [RegisterSet.Rcx, RegisterSet.Rdx], RegisterSet.R8, RegisterSet.Flags);

    private readonly CodeArena _arena = CodeArena.Reserve(size: 1 << 20);
    private readonly OpsLayout _layout = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("arg").Slot("add")));
    private readonly LivePatcher _live;
    private readonly StaticKey[] _keys = [new("first"), new("second")];
    private readonly MultiBranch _branch = new("mode", SettingModel.Ways);
    private readonly StaticCall _call = new("call");
    private readonly StaticCall _entry = new("entry");
    private readonly CodeConstant _constant = new("constant");
    private readonly Backend[] _backends;
    private readonly CodeBlock[] _targets;
    private readonly Dictionary<string, CodeBlock> _blocks = [];
    private readonly List<SettingEvent>[] _events;

    public SettingHistory(int threads)
    {
        _live = new LivePatcher(_arena, _layout);
        _targets = [.. Enumerable.Range(0, SettingModel.Targets).Select(i => Helper(a => a.mov(eax, i + 1)))];
        _backends = [.. Enumerable.Range(0, SettingModel.Backends).Select(CreateBackend)];
        _live.Switch(_backends[0]);
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
        int argument = op.Argument;
        _ = op.Verb switch
        {
            SettingVerb.Enable => c.Enable(_keys[argument % SettingModel.Keys]),
            SettingVerb.Disable => c.Disable(_keys[argument % SettingModel.Keys]),
            SettingVerb.Set => Set(),
            SettingVerb.Target => Target(),
            SettingVerb.SetConstant => SetConstant(),
            SettingVerb.Use => Use(),
            SettingVerb.Replace => Replace(),
            _ => (c.Enable(_keys[argument % SettingModel.Keys]), Set(), Target(), SetConstant(), Use(), Replace()).Item1,
        };

        LiveChanges Set() => c.Set(_branch, SettingModel.WayOf(argument) is >= 0 and int way ? way : null);

        LiveChanges Target() => SettingModel.TargetOf(argument) switch
        {
            < SettingModel.Targets and int target => c.Target(_call, _targets[target].Address),
            SettingModel.Targets => c.Target(_call, null),
            _ => c.ReturnZero(_call),
        };

        LiveChanges SetConstant() => c.Set(_constant, argument % SettingModel.Constants);

        LiveChanges Use() => c.Use(_backends[argument % SettingModel.Backends]);

        LiveChanges Replace() => c.Target(
            _entry, SettingModel.EntryOf(argument) is < SettingModel.Targets and int target ? _targets[target].Address : null);
    }

    private string Observe()
    {
        int call = _call.ReturnsZero ? SettingModel.Targets + 1 : Number(_call);
        int[] counts = [.. _keys.Select(static k => k.Count)];
        var values = new SettingModel.Values(_branch.Way ?? -1, call, Number(_entry), (int)_constant.Value, 0);
        return SettingModel.Show(counts, values, new Dictionary<string, bool>()) + string.Join(", ",
            _blocks.OrderBy(static b => b.Key, StringComparer.Ordinal).Select(static b =>
                $"{b.Key} {(b.Value.IsRetired ? "gone" : SettingModel.Seen(((delegate* unmanaged<long>)b.Value.Address.Value)()))}"));

        int Number(StaticCall call) => call.Target is VirtualAddress address
            ? Array.FindIndex(_targets, t => t.Address == address) : SettingModel.Targets;
    }

    /// <summary>
    /// long f(): what a site of each kind gives, four bits each, the first highest: a key, both keys, a branch, a call, a constant,
    /// variants, an argument, operands in registers of the site's own, a function that can be replaced.
    /// </summary>
    private CodeBlock Emit()
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(_layout);
        Label own = a.CreateLabel();
        a.push(rbx);
        a.xor(ebx, ebx);
        Way(a, 2, labels => sites.Branch(a, _keys[0], labels[1], length: 2));
        Way(a, 4, labels => sites.Branch(a, _keys, labels));
        Way(a, SettingModel.Ways + 1, labels => sites.Branch(a, _branch, labels[1..]));
        a.mov(eax, 7);
        sites.Call(a, _call);
        Take(a);
        sites.Constant(a, _constant, static a => a.mov(eax, int.MaxValue));
        Take(a);
        sites.Variants(a, [.. _backends.Select(static (b, i) => new SiteVariant(b, a => a.mov(eax, i + 1)))]);
        Take(a);
        sites.Emit(a, _layout["t.arg"], argument: SettingModel.Argument);
        Take(a);
        a.mov(ecx, SettingModel.Sum / 2);
        a.mov(edx, SettingModel.Sum / 2);
        sites.Emit(a, _layout["t.add"], convention: s_elsewhere);
        a.mov(rax, r8);
        Take(a);
        a.call(own);
        Take(a);
        a.mov(rax, rbx);
        a.pop(rbx);
        a.ret();
        a.Label(ref own);
        sites.Entry(a, _entry);
        a.mov(eax, SettingModel.OwnEntry);
        a.ret();
        return _arena.Emit(a, sites);
    }

    private static void Way(Assembler a, int ways, Action<Label[]> branch)
    {
        Label over = a.CreateLabel();
        Label[] labels = [.. Enumerable.Range(0, ways).Select(i => i == 0 ? default : a.CreateLabel())];
        branch(labels);
        a.mov(eax, 0);
        for (int i = 1; i < ways; i++)
        {
            a.jmp(over);
            a.Label(ref labels[i]);
            a.mov(eax, i);
        }

        a.Label(ref over);
        Take(a);
    }

    private static void Take(Assembler a)
    {
        a.shl(rbx, 4);
        a.or(rbx, rax);
    }

    /// <summary>Backend n adds n: in one instruction, by a call, in two instructions.</summary>
    private Backend CreateBackend(int n) => Backend.Create($"{n}", _layout, b =>
    {
        _ = n == 1
            ? b.Call("t.arg", Helper(static a => a.lea(rax, __[rdi + 1])).Address)
                .Call("t.add", Helper(static a => a.lea(rax, __[rdi + rsi + 1])).Address)
            : b.Inline("t.arg", a => Add(a, rax, __[rdi + n]))
                .Set("t.add", Operation.Inline(InlineBody.Create((a, c) => Add(
                    a, c.ResultRegister, __[c.ArgumentRegister(0) + c.ArgumentRegister(1) + n]))));

        void Add(Assembler a, AssemblerRegister64 result, AssemblerMemoryOperand sum)
        {
            a.lea(result, sum);
            if (n > 0)
            {
                a.lea(result, __[result]);
            }
        }
    });

    private CodeBlock Helper(Action<Assembler> write)
    {
        var a = new Assembler(64);
        write(a);
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
