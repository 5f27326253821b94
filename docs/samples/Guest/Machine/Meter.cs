using PvGuest.Hypervisors;
using PvGuest.Kernel;

namespace PvGuest.Machine;

/// <summary>What a run cost.</summary>
/// <param name="Instructions">Instructions executed, nops not counted.</param>
/// <param name="Nops">Nops executed: room at sites that nothing filled.</param>
/// <param name="ThroughTable">Calls and jumps through the table of operations, among the instructions.</param>
/// <param name="Traps">Instructions and stores that the hypervisor had to do instead.</param>
/// <param name="Hypercalls">Calls of the hypervisor.</param>
internal readonly record struct Costs(long Instructions, long Nops, long ThroughTable, long Traps, long Hypercalls);

/// <summary>How often a remap of 32 pages, or a context switch, left the guest: traps and hypercalls.</summary>
internal readonly record struct PhaseCost(bool IsRemap, long Exits);

/// <summary>Counts what a guest does, and keeps a model of its lazy modes beside it.</summary>
internal sealed class Meter
{
    private readonly Dictionary<ulong, string> _marks = [];
    private readonly HashSet<ulong> _executed = [];
    private readonly List<PhaseCost> _phases = [];
    private readonly List<int> _batches = [];
    private readonly Hypervisor _hypervisor;
    private readonly LazyModel? _model;
    private long _nops;
    private long _throughTable;
    private long _traps;
    private long _hypercalls;
    private long? _phaseBegan;

    public Meter(GuestImage image, Hypervisor hypervisor)
    {
        _hypervisor = hypervisor;
        foreach (string mark in (string[])["remap", "remap.end", "switch", "switch.end", "panic", "bug"])
        {
            _marks[image.Functions[mark].Value] = mark;
        }

        if (hypervisor.Policy is not null)
        {
            _model = new LazyModel(image, hypervisor);
        }
    }

    /// <summary>All instructions so far, nops too: the machine's time.</summary>
    public long Total { get; private set; }

    public Costs Costs => new(Total - _nops, _nops, _throughTable, _traps, _hypercalls);

    public IReadOnlyList<PhaseCost> Phases => _phases;

    /// <summary>Calls in each batch that the hypervisor was given, and in each that the model of the guest's lazy modes gave.</summary>
    public IReadOnlyList<int> Batches => _batches;

    public IReadOnlyList<int> ModelBatches => _model?.Batches ?? [];

    public bool WasExecuted(ulong address) => _executed.Contains(address);

    /// <summary>Counts an instruction that is about to be executed.</summary>
    /// <returns>What is wrong with the guest's being there, <see langword="null"/> as a rule.</returns>
    public string? Count(ulong address, Special special)
    {
        Total++;
        _executed.Add(address);
        _nops += special == Special.Nop ? 1 : 0;
        _throughTable += special == Special.ThroughTable ? 1 : 0;
        _model?.Follow(address);
        return _marks.TryGetValue(address, out string? mark) ? Note(mark) : null;
    }

    /// <summary>An instruction that was counted was not executed and will be.</summary>
    public void CountAgain() => Total--;

    public void CountTrap() => _traps++;

    public void CountHypercall() => _hypercalls++;

    /// <summary>Notes how many calls the hypervisor was given at once.</summary>
    public void NoteBatch(int calls) => _batches.Add(calls);

    /// <summary>Notes a call of lguest's, which has what is in the ring done first.</summary>
    public void NoteLguestCall(int drained, bool isOnlyForInterrupts, bool isOnlyFlush)
    {
        if (!isOnlyForInterrupts)
        {
            NoteBatch(isOnlyFlush ? drained : drained + 1);
        }
        else if (drained > 0)
        {
            NoteBatch(drained);
            _model?.Flush();
        }
    }

    private string? Note(string mark)
    {
        switch (mark)
        {
            case "panic":
                return $"the guest stopped itself: {_hypervisor.Name}'s answer to its last call can't be";
            case "bug":
                return "the guest came to an operation that its backend does not have";
            case "remap" or "switch":
                _phases.Add(new PhaseCost(mark == "remap", 0));
                _phaseBegan = _traps + _hypercalls;
                return null;
            default:
                // The first switch to a task ends in the task's beginning, as every other does.
                if (_phaseBegan is long began)
                {
                    _phases[^1] = _phases[^1] with { Exits = _traps + _hypercalls - began };
                    _phaseBegan = null;
                }

                return null;
        }
    }
}
