using PvPatch.LazyModes;

namespace PvPatch.KernelTests.Multicalls;

/// <summary>
/// Does with our queue what a kernel did with its multicalls, event by event, and compares each flush: when, why, how many calls, bytes of
/// arguments and functions.
/// </summary>
/// <remarks>
/// What the kernel asks for is taken from the trace: modes entered and left, context switches, calls, arguments, functions, calls issued.
/// What becomes of it is not: whether a call grows the last one, is put off, or makes those before it first, is up to the queue.
/// </remarks>
internal sealed class MulticallReplay
{
    private readonly LazyPolicy _policy;
    private readonly Dictionary<int, Replayed> _cpus = [];
    private readonly Dictionary<int, LazyTask> _tasks = [];

    private MulticallReplay(LazyPolicy policy)
    {
        _policy = policy;
    }

    /// <summary>Flushes with calls that the queue did as the kernel did, by reason.</summary>
    public SortedDictionary<FlushReason, int> Flushes { get; } = [];

    /// <summary>Calls and parts of calls that were queued.</summary>
    public int Calls { get; private set; }

    /// <summary>Parts of calls that grew another one.</summary>
    public int Grown { get; private set; }

    public int Switches { get; private set; }

    /// <summary>Replays a trace.</summary>
    /// <exception cref="InvalidDataException">Kernel and queue differ; the message has the event.</exception>
    /// <exception cref="PatchException">The queue refuses what the kernel did.</exception>
    public static MulticallReplay Run(LazyPolicy policy, IReadOnlyList<MulticallEvent> events)
    {
        var replay = new MulticallReplay(policy);
        for (int i = 0; i < events.Count; i++)
        {
            MulticallEvent e = events[i];
            if (!replay._cpus.TryGetValue(e.Cpu, out Replayed? cpu))
            {
                // The first events of a CPU may be in the middle of something.
                if (e.Name != "xen_mc_batch" || !e.Text.EndsWith("NONE", StringComparison.Ordinal))
                {
                    continue;
                }

                replay._cpus.Add(e.Cpu, cpu = new Replayed(e.Cpu, policy));
            }

            try
            {
                replay.Replay(cpu, e, events, i);
            }
            catch (InvalidDataException exception)
            {
                throw new InvalidDataException($"{policy.Name}, event {i}, {e}: {exception.Message}", exception);
            }
        }

        return replay;
    }

    private void Replay(Replayed cpu, MulticallEvent e, IReadOnlyList<MulticallEvent> events, int index)
    {
        VirtualAddress site = (ulong)index;
        if (e.Name == "xen_mc_flush_reason")
        {
            cpu.ExpectReason(e.Text);
            return;
        }

        if (e.Name == "xen_mc_flush")
        {
            Flushed flushed = cpu.Flush(e.Numbers(3) is [int calls, int bytes, int functions] ? (calls, bytes, functions) : default, site);
            if (flushed.Calls > 0)
            {
                Flushes[flushed.Reason] = Flushes.GetValueOrDefault(flushed.Reason) + 1;
            }

            return;
        }

        cpu.ExpectNoFlush();
        cpu.Follow(e, site);
        switch (e.Name)
        {
            case "xen_mc_batch":
                cpu.ExpectMode(ModeOf(e.Text));
                break;
            case "xen_mc_extend_args" when e.Text.EndsWith("OK", StringComparison.Ordinal):
                cpu.Grow(e.Numbers(2), site);
                Grown++;
                Calls++;
                break;
            case "xen_mc_extend_args":
                cpu.Tried = e.Numbers(1)[0];
                break;
            case "xen_mc_entry_alloc":
                cpu.Add(e.Numbers(1)[0], site);
                Calls++;
                break;
            case "xen_mc_entry":
                cpu.Sink.Operations[^1] = e.Numbers(1)[0];
                break;
            case "xen_mc_callback":
                cpu.OnFlush(site);
                break;
            case "xen_mc_issue":
                cpu.Lazy.Issue(ModeOf(e.Text), site);
                break;
            case "paravirt_enter_lazy_mmu" or "xen_enter_lazy_mmu" when !IsOfSwitch(e):
                cpu.Lazy.Enter(LazyMode.Mmu, site);
                break;
            case "xen_leave_lazy_mmu" when !IsOfSwitch(e):
                cpu.Lazy.Leave(LazyMode.Mmu, site);
                break;
            case "paravirt_start_context_switch" or "xen_start_context_switch":
                cpu.Lazy.StartContextSwitch(TaskOf(e.Task), site);
                break;
            case "xen_end_context_switch":
                // The task that runs then is the next one seen on this CPU.
                int next = events.Skip(index).FirstOrDefault(other => other.Cpu == e.Cpu && other.Task != e.Task)?.Task ?? e.Task;
                cpu.Lazy.EndContextSwitch(TaskOf(next), site);
                Switches++;
                break;
            default:
                break; // what these functions call
        }
    }

    // Parking and resuming call the functions that leave and enter.
    private static bool IsOfSwitch(MulticallEvent e) => e.Text.EndsWith("_context_switch", StringComparison.Ordinal);

    private static LazyMode ModeOf(string text) => text[^3..] switch
    {
        "MMU" => LazyMode.Mmu,
        "CPU" => LazyMode.Cpu,
        _ => LazyMode.None,
    };

    private LazyTask TaskOf(int id)
    {
        // Idle is a task on each CPU, which never has a mode.
        if (!_tasks.TryGetValue(id, out LazyTask? task))
        {
            _tasks.Add(id, task = new LazyTask($"{id}"));
        }

        return task;
    }

    /// <summary>A flush, as kernel and queue have it.</summary>
    private readonly record struct Flushed(FlushReason Reason, int Calls, int Bytes, int Functions);

    private readonly record struct XenCall(int Number, bool MayGrow);

    private sealed class Replayed
    {
        private readonly Queue<Flushed> _flushed = [];
        private string? _reason;
        private int _functions;

        public Replayed(int cpu, LazyPolicy policy)
        {
            Sink = new ReplaySink(this);
            Lazy = new LazyCpu<XenCall>(cpu, policy, Sink);
        }

        public LazyCpu<XenCall> Lazy { get; }

        public ReplaySink Sink { get; }

        /// <summary>The operation the kernel could not add to the last call, and so makes a call of.</summary>
        public int? Tried { get; set; }

        public void Note(FlushReason reason, int calls) => _flushed.Enqueue(new Flushed(reason, calls, Lazy.ArgumentBytes, _functions));

        public void ExpectMode(LazyMode mode) => Require(Lazy.Mode == mode, $"the mode is {mode}, ours {Lazy.Mode}");

        public void ExpectNoFlush() => Require(_flushed.Count == 0, $"no flush here, but ours: {string.Join(", ", _flushed)}");

        public void ExpectReason(string text)
        {
            _reason = text[(text.LastIndexOf(' ') + 1)..];
            string? ours = _flushed.Count == 0 ? null : _flushed.Peek().Reason switch
            {
                FlushReason.Full => "BATCH",
                FlushReason.Arguments => "ARGS",
                FlushReason.Callbacks => "CALLBACK",
                FlushReason other => other.ToString(),
            };
            Require(ours == _reason, $"a flush for {_reason}, ours for {ours ?? "none"}");
        }

        public Flushed Flush((int Calls, int Bytes, int Functions) kernel, VirtualAddress site)
        {
            // Nothing of ours to compare with: the kernel asks for a flush, or has one of nothing.
            if (_flushed.Count == 0)
            {
                (int calls, int bytes, int functions) = (Lazy.Count, Lazy.ArgumentBytes, _functions);
                Lazy.Flush(site);
                _flushed.Clear();
                _flushed.Enqueue(new Flushed(FlushReason.Requested, calls, bytes, functions));
            }

            Flushed ours = _flushed.Dequeue();
            Require(
                kernel == (ours.Calls, ours.Bytes, ours.Functions),
                $"{kernel.Calls} calls, {kernel.Bytes} bytes, {kernel.Functions} functions, but ours: {ours}");
            Require(_reason is not null || ours.Reason is not (FlushReason.Full or FlushReason.Arguments or FlushReason.Callbacks),
                $"ours: {ours}");
            _reason = null;
            return ours;
        }

        /// <summary>Brings the CPU into the context the event is in.</summary>
        public void Follow(MulticallEvent e, VirtualAddress site)
        {
            Lazy.IsPreemptible = e.IsPreemptible;
            if (e.IsInInterrupt && !Lazy.IsInInterrupt)
            {
                Lazy.EnterInterrupt(site);
            }
            else if (!e.IsInInterrupt && Lazy.IsInInterrupt)
            {
                Lazy.LeaveInterrupt(site);
            }
        }

        public void Grow(int[] operationAndBytes, VirtualAddress site)
        {
            int before = Lazy.Count;
            Sink.Operations.Add(operationAndBytes[0]);
            Lazy.Add(new XenCall(Sink.Operations.Count - 1, MayGrow: true), new byte[operationAndBytes[1]], site);
            Sink.Operations.RemoveAt(Sink.Operations.Count - 1);
            Require(Lazy.Count == before && _flushed.Count == 0, "a call grew, ours did not");
        }

        public void Add(int bytes, VirtualAddress site)
        {
            int before = Lazy.Count;
            Sink.Operations.Add(Tried ?? -1);
            Lazy.Add(new XenCall(Sink.Operations.Count - 1, Tried is not null), new byte[bytes], site);
            Tried = null;
            Require(Lazy.Count == before + 1 || (Lazy.Count == 1 && _flushed.Count == 1), "a call did not grow, ours did");
        }

        public void OnFlush(VirtualAddress site)
        {
            // One is counted when it is registered, after the flush that makes room for it.
            Lazy.OnFlush(static state => ((Replayed)state!)._functions--, this, site);
            _functions++;
        }

        private static void Require(bool holds, string message)
        {
            if (!holds)
            {
                throw new InvalidDataException(message);
            }
        }
    }

    private sealed class ReplaySink(Replayed cpu) : IHypercallSink<XenCall>
    {
        /// <summary>Xen's number of each call, by ours; that of the last one is known only when the kernel has filled it.</summary>
        public List<int> Operations { get; } = [];

        public void Call(HypercallBatch<XenCall> batch)
        {
            cpu.Note(batch.Reason, batch.Count);
            while (batch.Count > 0)
            {
                batch.Complete(0);
            }
        }

        public void Failed(in XenCall call, long result, VirtualAddress site) => throw new InvalidOperationException();

        public bool TryExtend(ref XenCall last, in XenCall next) =>
            next.MayGrow && Operations[last.Number] == Operations[next.Number];
    }
}
