using PvPatch.LazyModes;

namespace PvPatch.Tests.LazyModes;

/// <summary>
/// What a CPU should do, said once more and otherwise: lists instead of rings, a word for each refusal, no storage that is used again. It
/// predicts the log of a <see cref="TestSink"/>.
/// </summary>
internal sealed class LazyModel(LazyPolicy policy, ModelHypervisor hypervisor)
{
    private List<(TestCall Call, int Start, int Length)> _queue = [];
    private List<string> _functions = [];
    private LazyMode _entered;
    private int _levels;
    private int _interrupts;
    private int _ignored;
    private bool _open;

    public bool Preemptible { get; set; }

    public LazyMode Mode => _interrupts > 0 ? LazyMode.None : _entered;

    public int Count => _queue.Count;

    public int Levels => _levels;

    public string? Enter(LazyMode mode)
    {
        if (_open)
        {
            return DiagnosticCodes.LazyUnissued;
        }

        if (_interrupts > 0)
        {
            _ignored += policy.CountsNesting ? 1 : 0;
            return policy.CountsNesting ? null : DiagnosticCodes.LazyInterrupt;
        }

        if (MayNotBePreempted(mode))
        {
            return DiagnosticCodes.LazyPreemptible;
        }

        if (_entered != LazyMode.None && !(policy.CountsNesting && _entered == mode))
        {
            return DiagnosticCodes.LazyModeActive;
        }

        if (_entered == LazyMode.None)
        {
            hypervisor.Tell(policy, mode);
        }

        _entered = mode;
        _levels++;
        return null;
    }

    public string? Leave(LazyMode mode)
    {
        if (_open)
        {
            return DiagnosticCodes.LazyUnissued;
        }

        if (_interrupts > 0)
        {
            if (!policy.CountsNesting || _ignored == 0)
            {
                return DiagnosticCodes.LazyInterrupt;
            }

            string? late = Flush(FlushReason.Leave);
            _ignored -= late is null ? 1 : 0;
            return late;
        }

        if (_entered != mode)
        {
            return DiagnosticCodes.LazyModeUnpaired;
        }

        if (MayNotBePreempted(mode))
        {
            return DiagnosticCodes.LazyPreemptible;
        }

        if (Flush(FlushReason.Leave, policy.LeaveAlwaysCalls) is string failed)
        {
            return failed;
        }

        _levels--;
        if (_levels == 0)
        {
            hypervisor.Tell(policy, LazyMode.None);
            _entered = LazyMode.None;
        }

        return null;
    }

    public string? Start(ModelTask task)
    {
        if ((_open ? DiagnosticCodes.LazyUnissued : SwitchRefused()) is string refused)
        {
            return refused;
        }

        if (task.Parked != LazyMode.None)
        {
            return DiagnosticCodes.LazyTask;
        }

        if (_entered == LazyMode.Cpu || (_entered == LazyMode.Mmu && !policy.ParksModes))
        {
            return DiagnosticCodes.LazyModeActive;
        }

        if (Flush(FlushReason.ContextSwitch, policy.LeaveAlwaysCalls && _entered != LazyMode.None) is string failed)
        {
            return failed;
        }

        if (_entered != LazyMode.None)
        {
            hypervisor.Tell(policy, LazyMode.None);
        }

        (task.Parked, task.Levels) = (_entered, _levels);
        hypervisor.Tell(policy, LazyMode.Cpu);
        (_entered, _levels) = (LazyMode.Cpu, 1);
        return null;
    }

    public string? End(ModelTask task)
    {
        if ((_open ? DiagnosticCodes.LazyUnissued : SwitchRefused()) is string refused)
        {
            return refused;
        }

        if (_entered != LazyMode.Cpu || _levels != 1)
        {
            return DiagnosticCodes.LazyModeUnpaired;
        }

        if (Flush(FlushReason.ContextSwitch, policy.LeaveAlwaysCalls) is string failed)
        {
            return failed;
        }

        hypervisor.Tell(policy, LazyMode.None);
        (_entered, _levels) = (task.Parked, task.Levels);
        (task.Parked, task.Levels) = (LazyMode.None, 0);
        if (_entered != LazyMode.None)
        {
            hypervisor.Tell(policy, _entered);
        }

        return null;
    }

    public string? EnterInterrupt()
    {
        _interrupts += _open ? 0 : 1;
        return _open ? DiagnosticCodes.LazyUnissued : null;
    }

    public string? LeaveInterrupt()
    {
        if (_open)
        {
            return DiagnosticCodes.LazyUnissued;
        }

        if (_interrupts == 0 || (_interrupts == 1 && _ignored > 0))
        {
            return DiagnosticCodes.LazyInterrupt;
        }

        _interrupts--;
        return null;
    }

    public string? Queue(TestCall call, int bytes, LazyMode deferredIn)
    {
        if (_open)
        {
            return DiagnosticCodes.LazyUnissued;
        }

        if (bytes > policy.ArgumentBytes)
        {
            return DiagnosticCodes.LazyArguments;
        }

        if ((Mode & deferredIn & policy.DefersIn) != LazyMode.None)
        {
            return Put(call, bytes);
        }

        if (!policy.KeepsOrder)
        {
            (int made, string? failed) = hypervisor.Make(FlushReason.Immediate, [call]);
            return failed ?? (made == 1 ? null : throw new InvalidOperationException());
        }

        return Put(call, bytes) ?? Flush(FlushReason.Immediate);
    }

    public string? Add(TestCall call, int bytes)
    {
        string? failed = bytes > policy.ArgumentBytes ? DiagnosticCodes.LazyArguments : Put(call, bytes);
        _open |= failed is null;
        return failed;
    }

    public string? Issue(LazyMode deferredIn)
    {
        _open = false;
        return (Mode & deferredIn & policy.DefersIn) == LazyMode.None ? Flush(FlushReason.Immediate) : null;
    }

    public string? OnFlush(string name)
    {
        if (policy.Callbacks == 0)
        {
            return DiagnosticCodes.LazyArguments;
        }

        if (_functions.Count == policy.Callbacks && Flush(FlushReason.Callbacks) is string failed)
        {
            return failed;
        }

        _functions.Add(name);
        return null;
    }

    public string? FlushNow(FlushReason reason)
    {
        if (reason == FlushReason.Observed)
        {
            if (_open)
            {
                return DiagnosticCodes.LazyUnissued;
            }

            if (policy.RefusesObservers && Mode != LazyMode.None)
            {
                return DiagnosticCodes.LazyObserved;
            }
        }

        string? failed = Flush(reason);
        if (failed is null && Mode != LazyMode.None)
        {
            hypervisor.Tell(policy, LazyMode.None);
            hypervisor.Tell(policy, Mode);
        }

        return failed;
    }

    private string? Put(TestCall call, int bytes)
    {
        int end = _queue.Count == 0 ? 0 : _queue[^1].Start + _queue[^1].Length;
        if (policy.Extends && _queue.Count > 0 && end + bytes <= policy.ArgumentBytes && _queue[^1].Call.IsArray && call.IsArray)
        {
            (TestCall last, int start, int length) = _queue[^1];
            _queue[^1] = (last with { Length = last.Length + 1 }, start, length + bytes);
            return null;
        }

        int aligned = (end + policy.ArgumentAlignment - 1) / policy.ArgumentAlignment * policy.ArgumentAlignment;
        int most = Math.Max(policy.Capacity, 1);
        bool full = _queue.Count >= most;
        bool fits = aligned + bytes <= policy.ArgumentBytes;
        if (_queue.Count == most && fits && policy.OverflowIsMade)
        {
            _queue.Add((call, aligned, bytes));
            return Flush(FlushReason.Full);
        }

        if ((full || !fits) && Flush(full ? FlushReason.Full : FlushReason.Arguments) is string failed)
        {
            return failed;
        }

        _queue.Add((call, _queue.Count == 0 ? 0 : aligned, bytes));
        return null;
    }

    private string? Flush(FlushReason reason, bool evenIfEmpty = false)
    {
        string? failed = null;
        if (_queue.Count > 0 || evenIfEmpty)
        {
            (int made, failed) = hypervisor.Make(reason, [.. _queue.Select(static q => q.Call)]);
            _queue = [.. _queue.Skip(made)];
            if (_queue.Count > 0)
            {
                int shift = _queue[0].Start;
                _queue = [.. _queue.Select(q => (q.Call, q.Start - shift, q.Length))];
            }
        }

        if (_queue.Count == 0)
        {
            hypervisor.Log.AddRange(_functions);
            _functions = [];
        }

        return failed;
    }

    private bool MayNotBePreempted(LazyMode mode) => Preemptible && (mode == LazyMode.Cpu || !policy.ParksModes);

    private string? SwitchRefused() =>
        _interrupts > 0 ? DiagnosticCodes.LazyInterrupt : Preemptible ? DiagnosticCodes.LazyPreemptible : null;
}
