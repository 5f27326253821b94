using PvGuest.Hypervisors;
using PvGuest.Kernel;
using PvPatch;
using PvPatch.LazyModes;

namespace PvGuest.Machine;

internal enum LazyEventKind
{
    Enter, StartSwitch, Leave, Call, EnterInterrupt, LeaveInterrupt,
}

/// <summary>What becomes of a lazy mode in a function of the guest's.</summary>
/// <param name="Kind">What.</param>
/// <param name="Bytes">Bytes of arguments in memory, of a call.</param>
/// <param name="Extends">Whether calls of this kind that follow each other become one.</param>
internal readonly record struct LazyEvent(LazyEventKind Kind, int Bytes = 0, bool Extends = false)
{
    public static readonly LazyEvent EnterMmu = new(LazyEventKind.Enter);
    public static readonly LazyEvent StartSwitch = new(LazyEventKind.StartSwitch);
    public static readonly LazyEvent Leave = new(LazyEventKind.Leave);
}

/// <summary>
/// PvPatch's own lazy modes, led along beside the guest's: when the guest enters a function that enters or leaves a mode or makes a call,
/// so does the model. What both give to the hypervisor must be the same, batch by batch.
/// </summary>
internal sealed class LazyModel : IHypercallSink<LazyEvent>
{
    private readonly Dictionary<ulong, LazyEvent> _events = [];
    private readonly List<int> _batches = [];
    private readonly LazyTask _task = new("guest");
    private readonly LazyCpu<LazyEvent> _cpu;

    public LazyModel(GuestImage image, Hypervisor hypervisor)
    {
        _cpu = new LazyCpu<LazyEvent>(0, hypervisor.Policy!, this);
        foreach ((string function, LazyEvent what) in hypervisor.LazyEvents)
        {
            _events[hypervisor.AddressOf(image, function)] = what;
        }

        _events[image.Functions["timer.begin"].Value] = new LazyEvent(LazyEventKind.EnterInterrupt);
        _events[image.Functions["timer.end"].Value] = new LazyEvent(LazyEventKind.LeaveInterrupt);
    }

    /// <summary>Calls in each batch.</summary>
    public IReadOnlyList<int> Batches => _batches;

    /// <summary>The guest comes to an address.</summary>
    public void Follow(ulong address)
    {
        if (!_events.TryGetValue(address, out LazyEvent what))
        {
            return;
        }

        switch (what.Kind)
        {
            case LazyEventKind.Enter:
                _cpu.Enter(LazyMode.Mmu, address);
                break;
            case LazyEventKind.StartSwitch:
                _cpu.StartContextSwitch(_task, address);
                break;
            case LazyEventKind.Leave when _cpu.IsInInterrupt:
                break; // VMI's way to flush: the mode is left and entered again
            case LazyEventKind.Leave when _cpu.EnteredMode == LazyMode.Cpu:
                _cpu.EndContextSwitch(_task, address);
                break;
            case LazyEventKind.Leave:
                _cpu.Leave(LazyMode.Mmu, address);
                break;
            case LazyEventKind.EnterInterrupt:
                _cpu.EnterInterrupt(address);
                break;
            case LazyEventKind.LeaveInterrupt:
                _cpu.LeaveInterrupt(address);
                break;
            default:
                _cpu.Queue(what, stackalloc byte[what.Bytes], LazyMode.Mmu | LazyMode.Cpu, address);
                break;
        }
    }

    /// <summary>The hypervisor did what was queued without being asked.</summary>
    public void Flush() => _cpu.Flush(VirtualAddress.Zero);

    void IHypercallSink<LazyEvent>.Call(HypercallBatch<LazyEvent> batch)
    {
        _batches.Add(batch.Count);
        for (int i = batch.Count; i > 0; i--)
        {
            batch.Complete(0);
        }
    }

    void IHypercallSink<LazyEvent>.Failed(in LazyEvent call, long result, VirtualAddress site)
    {
        // No call of the model fails.
    }

    bool IHypercallSink<LazyEvent>.TryExtend(ref LazyEvent last, in LazyEvent next) => last.Extends && next.Extends;
}
