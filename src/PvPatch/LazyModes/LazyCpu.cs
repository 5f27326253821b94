namespace PvPatch.LazyModes;

/// <summary>
/// One CPU's lazy mode and the calls it has put off: entered, left and parked by the host's kernel, and flushed before anything could see
/// that a call was put off.
/// </summary>
/// <typeparam name="TCall">One call: its number and what it passes in registers.</typeparam>
/// <remarks>
/// Used by one thread at a time, the one that is this CPU. Nothing is allocated after it is made. Misuse throws a <see
/// cref="PatchException"/> that names CPU, state, the site of the misuse and the one the state comes from, and changes nothing. Sites are
/// addresses in the host's or its guest's code, for such messages alone.
/// </remarks>
public sealed class LazyCpu<TCall>
    where TCall : struct
{
    private readonly LazyState _state;
    private readonly CallQueue<TCall> _queue;
    private VirtualAddress _addedAt;
    private bool _isOpen;

    /// <summary>Makes a CPU in no mode, with nothing queued.</summary>
    /// <param name="cpu">Its number, not negative.</param>
    /// <param name="policy">The rules of the hypervisor.</param>
    /// <param name="sink">What makes the calls.</param>
    /// <exception cref="ArgumentOutOfRangeException">The number is negative, or a number of the policy is out of its range.</exception>
    public LazyCpu(int cpu, LazyPolicy policy, IHypercallSink<TCall> sink)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(cpu);
        ArgumentNullException.ThrowIfNull(policy);
        ArgumentNullException.ThrowIfNull(sink);
        policy.Check();
        Number = cpu;
        Policy = policy;
        _state = new LazyState(cpu, policy);
        _queue = new CallQueue<TCall>(cpu, policy, sink);
    }

    /// <summary>The CPU's number.</summary>
    public int Number { get; }

    /// <summary>The rules.</summary>
    public LazyPolicy Policy { get; }

    /// <summary>The mode as operations see it: none in interrupt context.</summary>
    public LazyMode Mode => _state.Mode;

    /// <summary>The mode that was entered and not left, in interrupt context too.</summary>
    public LazyMode EnteredMode => _state.Entered;

    /// <summary>How often the mode was entered and not left.</summary>
    public int Depth => _state.Entered == LazyMode.None ? 0 : _state.Depth + 1;

    /// <summary>Whether the CPU is in interrupt context.</summary>
    public bool IsInInterrupt => _state.InterruptDepth > 0;

    /// <summary>
    /// Whether the host may preempt what the CPU does. <see langword="false"/> at first; a host with preemption keeps it as its own count
    /// of reasons not to preempt has it.
    /// </summary>
    public bool IsPreemptible
    {
        get => _state.IsPreemptible;
        set => _state.IsPreemptible = value;
    }

    /// <summary>Number of calls queued.</summary>
    public int Count => _queue.Buffer.Count;

    /// <summary>Bytes of arguments queued, those between arguments included.</summary>
    public int ArgumentBytes => _queue.Buffer.ArgumentEnd;

    /// <summary>Enters a mode. In interrupt context it has no effect where nesting is counted, and is refused otherwise.</summary>
    /// <param name="mode"><see cref="LazyMode.Mmu"/> or <see cref="LazyMode.Cpu"/>.</param>
    /// <param name="site">Where.</param>
    /// <exception cref="PatchException">
    /// Another mode is active, or the same where nesting is not counted (PV0101); the CPU may be preempted (PV0103); it is in an interrupt
    /// (PV0104); the queue is flushing (PV0105); added calls are not issued (PV0109); the sink failed (PV0107).
    /// </exception>
    public void Enter(LazyMode mode, VirtualAddress site)
    {
        CheckFree(site);
        bool changes = _state.CheckEnter(mode, site);
        if (changes)
        {
            _queue.Tell(mode, site, FlushReason.Requested);
        }

        _state.Enter(mode, site);
    }

    /// <summary>Leaves a mode: the calls put off are made first, at each leave.</summary>
    /// <param name="mode">The mode to leave.</param>
    /// <param name="site">Where.</param>
    /// <exception cref="PatchException">
    /// The CPU is in another mode or in none (PV0102), or what else <see cref="Enter"/> and <see cref="Flush"/> refuse. The mode is not
    /// left.
    /// </exception>
    public void Leave(LazyMode mode, VirtualAddress site)
    {
        CheckFree(site);
        bool changes = _state.CheckLeave(mode, site);
        _queue.Flush(FlushReason.Leave, site, _state.Mode, evenIfEmpty: Policy.LeaveAlwaysCalls && !IsInInterrupt);
        if (changes)
        {
            _queue.Tell(LazyMode.None, site, FlushReason.Leave);
        }

        _state.Leave();
    }

    /// <summary>
    /// Begins a context switch: makes the calls put off, parks MMU mode with the task that ran, and enters CPU mode.
    /// </summary>
    /// <param name="previous">The task that ran.</param>
    /// <param name="site">Where.</param>
    /// <exception cref="PatchException">
    /// The CPU may be preempted (PV0103) or is in an interrupt (PV0104); CPU mode is active, or MMU mode and the policy parks none
    /// (PV0101); the task has ended or has a parked mode already (PV0111); or what <see cref="Flush"/> refuses. No mode is changed.
    /// </exception>
    public void StartContextSwitch(LazyTask previous, VirtualAddress site)
    {
        ArgumentNullException.ThrowIfNull(previous);
        CheckFree(site);
        _state.CheckStart(previous, site);
        _queue.Flush(FlushReason.ContextSwitch, site, _state.Mode, evenIfEmpty: Policy.LeaveAlwaysCalls && _state.Entered != LazyMode.None);
        bool parks = _state.Entered != LazyMode.None;
        if (parks)
        {
            _queue.Tell(LazyMode.None, site, FlushReason.ContextSwitch);
        }

        _queue.Tell(LazyMode.Cpu, site, FlushReason.ContextSwitch);
        if (parks)
        {
            _state.Park(previous);
        }

        _state.Set(LazyMode.Cpu, 0, site);
    }

    /// <summary>
    /// Ends a context switch: makes the calls put off, leaves CPU mode, and is in the mode again that is parked with the task that runs
    /// now.
    /// </summary>
    /// <param name="next">The task that runs now.</param>
    /// <param name="site">Where.</param>
    /// <exception cref="PatchException">
    /// No context switch was begun, or CPU mode was entered again and not left (PV0102); or what <see cref="StartContextSwitch"/> refuses.
    /// </exception>
    public void EndContextSwitch(LazyTask next, VirtualAddress site)
    {
        ArgumentNullException.ThrowIfNull(next);
        CheckFree(site);
        _state.CheckEnd(next, site);
        _queue.Flush(FlushReason.ContextSwitch, site, _state.Mode, evenIfEmpty: Policy.LeaveAlwaysCalls);
        _queue.Tell(LazyMode.None, site, FlushReason.ContextSwitch);
        if (next.Parked != LazyMode.None)
        {
            _queue.Tell(next.Parked, site, FlushReason.ContextSwitch);
        }

        _state.Resume(next);
    }

    /// <summary>Enters interrupt context, in which there is no mode: every call is made at once. May be nested.</summary>
    /// <param name="site">Where the CPU was interrupted.</param>
    /// <exception cref="PatchException">
    /// Added calls are not issued, so interrupts are off (PV0109); the queue is flushing (PV0105).
    /// </exception>
    public void EnterInterrupt(VirtualAddress site)
    {
        CheckFree(site);
        _state.EnterInterrupt(site);
    }

    /// <summary>Leaves interrupt context.</summary>
    /// <param name="site">Where.</param>
    /// <exception cref="PatchException">
    /// The CPU is not in an interrupt, or the interrupt entered a mode and did not leave it (PV0104); or what <see cref="EnterInterrupt"/>
    /// refuses.
    /// </exception>
    public void LeaveInterrupt(VirtualAddress site)
    {
        CheckFree(site);
        _state.LeaveInterrupt(site);
    }

    /// <summary>Makes a call, or puts it off where mode and policy allow.</summary>
    /// <param name="call">The call.</param>
    /// <param name="arguments">What it passes in memory; copied.</param>
    /// <param name="deferredIn">The modes in which it may be put off.</param>
    /// <param name="site">Where.</param>
    /// <returns>Whether it was put off. It may have been made meanwhile, where the queue was full.</returns>
    /// <exception cref="PatchException">
    /// The arguments are larger than the space for them (PV0106); or what <see cref="Flush"/> refuses. Where calls had to be made to have
    /// room for this one and could not be, it is not queued; where it was to be made itself, it is
    /// queued like those with it, or, where it was to overtake them, not at all.
    /// </exception>
    public bool Queue(in TCall call, ReadOnlySpan<byte> arguments, LazyMode deferredIn, VirtualAddress site)
    {
        CheckFree(site);
        LazyMode mode = _state.Mode;
        if ((mode & deferredIn & Policy.DefersIn) != 0)
        {
            _queue.Add(call, arguments, site, mode);
            return true;
        }

        MakeNow(call, arguments, mode, site);
        return false;
    }

    /// <summary>Makes a call at once and gives its result.</summary>
    /// <param name="call">The call.</param>
    /// <param name="arguments">What it passes in memory.</param>
    /// <param name="site">Where.</param>
    /// <returns>The result; of a negative one the sink was told as well.</returns>
    /// <exception cref="PatchException">As <see cref="Queue"/>.</exception>
    public long Call(in TCall call, ReadOnlySpan<byte> arguments, VirtualAddress site)
    {
        CheckFree(site);
        MakeNow(call, arguments, _state.Mode, site);
        return _queue.LastResult;
    }

    /// <summary>
    /// Adds a call to the queue without asking whether it may be put off, which <see cref="Issue"/> does for several at once. Interrupts
    /// are off from the first of them to that.
    /// </summary>
    /// <param name="call">The call.</param>
    /// <param name="arguments">What it passes in memory; copied.</param>
    /// <param name="site">Where.</param>
    /// <exception cref="PatchException">As <see cref="Queue"/>.</exception>
    public void Add(in TCall call, ReadOnlySpan<byte> arguments, VirtualAddress site)
    {
        _queue.CheckOutside(site);
        _queue.Add(call, arguments, site, _state.Mode);
        if (!_isOpen)
        {
            _isOpen = true;
            _addedAt = site;
        }
    }

    /// <summary>
    /// Ends what <see cref="Add"/> began: makes all calls queued, unless the CPU is in a mode in which they may be put off.
    /// </summary>
    /// <param name="deferredIn">The modes in which they may be put off.</param>
    /// <param name="site">Where.</param>
    /// <exception cref="PatchException">As <see cref="Flush"/>.</exception>
    public void Issue(LazyMode deferredIn, VirtualAddress site)
    {
        _queue.CheckOutside(site);
        _isOpen = false;
        LazyMode mode = _state.Mode;
        if ((mode & deferredIn & Policy.DefersIn) == 0)
        {
            _queue.Flush(FlushReason.Immediate, site, mode);
        }
    }

    /// <summary>
    /// Has a function run when all calls queued so far are made, behind those and in the order of registration. With nothing queued it runs
    /// at the next flush.
    /// </summary>
    /// <param name="function">The function. It may not use this queue.</param>
    /// <param name="state">What it is given.</param>
    /// <param name="site">Where.</param>
    /// <exception cref="PatchException">The policy has room for no functions (PV0106); or what <see cref="Flush"/> refuses.</exception>
    public void OnFlush(Action<object?> function, object? state, VirtualAddress site)
    {
        ArgumentNullException.ThrowIfNull(function);
        _queue.CheckOutside(site);
        _queue.AddCallback(function, state, site, _state.Mode);
    }

    /// <summary>Makes the calls queued, in their order, then runs the functions that wait for them. The mode stays.</summary>
    /// <param name="site">Where.</param>
    /// <exception cref="PatchException">
    /// The queue is flushing (PV0105); the sink or a function threw (PV0107); the sink completed no call, or more than there are (PV0108).
    /// Calls that were not completed stay queued, with the functions that wait for them.
    /// </exception>
    public void Flush(VirtualAddress site) => FlushFor(FlushReason.Requested, site);

    /// <summary>
    /// Says that an operation is about to observe state that calls put off may change: they are made first, or the operation is refused
    /// where the policy is strict.
    /// </summary>
    /// <param name="site">The operation.</param>
    /// <exception cref="PatchException">A mode is active under a strict policy (PV0110); or what <see cref="Flush"/> refuses.</exception>
    public void Observe(VirtualAddress site)
    {
        CheckFree(site);
        if (Policy.RefusesObservers && _state.Mode != LazyMode.None)
        {
            throw LazyErrors.Observed(_state, Number, site);
        }

        FlushFor(FlushReason.Observed, site);
    }

    private void FlushFor(FlushReason reason, VirtualAddress site)
    {
        _queue.CheckOutside(site);
        _queue.Flush(reason, site, _state.Mode);

        // A hypervisor that queues itself flushes when the mode ends, so the mode ends and begins anew.
        if (Policy.TellsMode && _state.Mode is LazyMode mode and not LazyMode.None)
        {
            _queue.Tell(LazyMode.None, site, reason);
            _queue.Tell(mode, site, reason);
        }
    }

    private void MakeNow(in TCall call, ReadOnlySpan<byte> arguments, LazyMode mode, VirtualAddress site)
    {
        if (!Policy.KeepsOrder)
        {
            _queue.Overtake(call, arguments, site, mode);
            return;
        }

        _queue.Add(call, arguments, site, mode);
        _queue.Flush(FlushReason.Immediate, site, mode);
    }

    // Modes and interrupts change neither within a flush nor between Add and Issue.
    private void CheckFree(VirtualAddress site)
    {
        _queue.CheckOutside(site);
        if (_isOpen)
        {
            throw LazyErrors.Unissued(_state, Number, site, _addedAt, "The CPU does something else before added calls are issued");
        }
    }
}
