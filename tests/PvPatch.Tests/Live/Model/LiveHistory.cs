using System.Diagnostics;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Tests.Live.Behaviour;

namespace PvPatch.Tests.Live.Model;

/// <summary>
/// Runs programs of operations, each on a thread of its own and under an executor that runs a block all the while; then looks for an order
/// of the operations, no earlier one behind a later one, in which the sequential model gives the same results and the same end.
/// </summary>
internal sealed class LiveHistory : IDisposable
{
    private readonly LiveHost _host = new();
    private readonly Backend[] _backends;
    private readonly CodeBlock[] _targets;
    private readonly Dictionary<string, (CodeBlock Block, byte[] Bytes)> _blocks = [];
    private readonly List<Event>[] _events;
    private readonly bool _endsWithVector;

    public LiveHistory(int threads, bool endsWithVector)
    {
        HostBackends all = _host.Backends;
        _backends = [all.Inlined, all.Called, all.Outlined, all.Left, all.Nops, all.Vector];
        _targets = [all.FunctionBlock(11), all.FunctionBlock(12)];
        _events = [.. Enumerable.Range(0, threads + 2).Select(static _ => new List<Event>())];
        _endsWithVector = endsWithVector;
    }

    public static int BackendCount => 6;

    /// <summary>Runs everything; throws where there is no such order.</summary>
    public void Check(Op[] before, Op[][] programs)
    {
        RunAll(0, "i", before);
        CodeBlock? steady = Array.Exists(before, static o => o.Verb == Verb.Switch)
            ? Probe.Emit(_host, Shape.Atomic(), Shape.Guarded(1)) : null;
        Executor executor = _host.Arena.RegisterExecutor();
        bool stop = false;
        string? wrong = null;
        var runner = new Thread(() => wrong = RunSteady(executor, steady, ref stop));
        runner.Start();
        using var start = new System.Threading.Barrier(programs.Length);
        Thread[] threads = [.. programs.Select((program, i) => new Thread(() =>
        {
            start.SignalAndWait();
            RunAll(i + 1, $"{i}", program);
        }))];
        Array.ForEach(threads, static t => t.Start());
        Array.ForEach(threads, static t => t.Join());
        Volatile.Write(ref stop, true);
        runner.Join();
        executor.Dispose();
        Op[] end = [
            new(Verb.Observe), new(Verb.ReclaimAll), new(Verb.Switch, 0, 1), new(Verb.Observe), new(Verb.Switch, 0, 2), new(Verb.Observe)];
        Op[] vector = [new(Verb.Switch, 0, 5), new(Verb.Observe), new(Verb.Emit, 0, 0), new(Verb.Emit, 0, 4), new(Verb.Observe)];
        RunAll(programs.Length + 1, "e", _endsWithVector ? [.. end, .. vector] : end);
        if (wrong is not null)
        {
            throw new InvalidOperationException($"{wrong}\n{this}");
        }

        if (!Search(new LiveModel(_host, _backends), new int[_events.Length]))
        {
            throw new InvalidOperationException($"no order of these gives these results\n{this}");
        }
    }

    public void Dispose() => _host.Dispose();

    public override string ToString() => string.Join('\n', _events.Select(static (events, i) => $"  {i}: {string.Join(", ", events)}"));

    private static string? RunSteady(Executor executor, CodeBlock? block, ref bool stop)
    {
        while (block is not null && !Volatile.Read(ref stop))
        {
            executor.Enter();
            Seen seen = Probe.Run(block);
            executor.Leave();
            if (!seen.IsKept || (seen.Results & 0xf) > 9 || (seen.Results >> 4) > 10)
            {
                return $"an executor saw {seen}";
            }
        }

        return null;
    }

    private void RunAll(int thread, string name, Op[] ops)
    {
        string own = $"{name}.none";
        for (int i = 0; i < ops.Length; i++)
        {
            Op op = ops[i];
            string block = op.Verb == Verb.Emit ? $"{name}.{i}" : op.Block switch { 0 => "i.0", 1 => "i.1", _ => own };
            if (op.Verb is Verb.Bind or Verb.Link or Verb.Unlink or Verb.Retire && !Has(block))
            {
                continue;
            }

            long start = Stopwatch.GetTimestamp();
            string result = Run(op, block);
            long end = Stopwatch.GetTimestamp();
            own = op.Verb == Verb.Emit && result == LiveModel.Applied ? block : own;
            _events[thread].Add(new Event(op, block, start, end, result));
        }
    }

    private bool Has(string block)
    {
        lock (_blocks)
        {
            return _blocks.ContainsKey(block);
        }
    }

    private string Run(Op op, string name)
    {
        CodeBlock? block;
        lock (_blocks)
        {
            block = _blocks.TryGetValue(name, out (CodeBlock Block, byte[] Bytes) known) ? known.Block : null;
        }

        Done done = op.Verb switch
        {
            Verb.Emit => LiveHost.TryArena(() => Emit(op.Argument, name)),
            Verb.Bind => _host.Bind(block!),
            Verb.Switch => _host.Switch(_backends[op.Argument]),
            Verb.SwitchSlot => _host.SwitchSlot(op.Block & 1, _backends[op.Argument]),
            Verb.Link => _host.Link(block![0], _targets[op.Argument].Address, HostBackends.Narrow),
            Verb.Unlink => _host.Unlink(block![0]),
            Verb.Retire => _host.Retire(block!),
            Verb.RetireTarget => _host.Retire(_targets[op.Argument]),
            Verb.Revert => _host.Revert(),
            Verb.Observe => new Done(true, false, Observe(), 0, BarrierKind.None, 0, ""),
            Verb.DisposePatcher => LiveHost.TryArena(_host.DisposePatcher),
            _ => LiveHost.TryArena(() => _host.Arena.Reclaim()),
        };
        return done.Code ?? LiveModel.Applied;
    }

    private void Emit(int shape, string name)
    {
        CodeBlock block = Probe.Emit(_host, LiveModel.Shapes[shape]);
        lock (_blocks)
        {
            _blocks.Add(name, (block, block.ToArray()));
        }
    }

    private string Observe()
    {
        var code = new CodeBlock[1];
        IEnumerable<string> blocks = _blocks.OrderBy(static b => b.Key, StringComparer.Ordinal).Select(b =>
        {
            code[0] = b.Value.Block;
            if (code[0].IsRetired)
            {
                return $"{b.Key}: gone";
            }

            string what = $"{b.Key}: {code[0][0].State} {code[0][1].State}";
            if (code[0][0].State == LiveSiteState.Original && code[0][1].State == LiveSiteState.Original
                && !code[0].ToArray().AsSpan().SequenceEqual(b.Value.Bytes))
            {
                return $"{what} but not as emitted";
            }

            bool leadsNowhere = code[0][0].State == LiveSiteState.Linked
                && Array.Exists(_targets, t => t.IsRetired && t.Address == code[0][0].Target);
            return !leadsNowhere && IsBound(0, code[0][0].State) && IsBound(1, code[0][1].State) ? $"{what} {Results(code[0])}" : what;
        }).ToArray();
        string current;
        try
        {
            current = _events.Any(static t => t.Exists(static e => e.Op.Verb == Verb.DisposePatcher)) ? "-" : _host.Current?.Name ?? "-";
        }
        catch (PatchException)
        {
            current = "-";
        }

        return $"{string.Join("; ", blocks)}; {current}";

        // A slot that nothing was switched to traps.
        bool IsBound(int slot, LiveSiteState state) => state == LiveSiteState.Linked || _events.Any(t => t.Exists(e =>
            e.Result == LiveModel.Applied && (e.Op.Verb == Verb.Switch || (e.Op.Verb == Verb.SwitchSlot && e.Op.Block == slot))));
    }

    private static string Results(CodeBlock block)
    {
        Seen seen = Probe.Run(block);
        return $"{seen.Results & 0xf} {seen.Results >> 4} {(seen.IsKept ? "kept" : "lost")}";
    }

    private bool Search(LiveModel state, int[] next)
    {
        bool any = false;
        for (int thread = 0; thread < next.Length; thread++)
        {
            if (next[thread] == _events[thread].Count)
            {
                continue;
            }

            any = true;
            Event candidate = _events[thread][next[thread]];
            if (IsBehindAnother(candidate, next))
            {
                continue;
            }

            LiveModel after = state.Clone();
            if (after.Step(candidate))
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

    /// <summary>Whether an operation that is still to come ended before this one began.</summary>
    private bool IsBehindAnother(Event candidate, int[] next)
    {
        for (int thread = 0; thread < next.Length; thread++)
        {
            if (next[thread] < _events[thread].Count && _events[thread][next[thread]].End < candidate.Start)
            {
                return true;
            }
        }

        return false;
    }
}
