namespace PvPatch.LazyModes;

/// <summary>
/// The state machine of one CPU's lazy modes: which one, how deep, entered where, in an interrupt or not. It refuses what may not be and
/// knows nothing of calls.
/// </summary>
/// <remarks>
/// <code>
///            Enter(Mmu)                     StartContextSwitch               (counted nesting: Enter of the mode
///   None ────────────────► Mmu      Mmu ──────────────────────────► Cpu       that is active adds one level,
///     ▲                     │             mode parked with prev      │        Leave takes one away)
///     └─────────────────────┘       Mmu ◄────────────────────────────┘
///            Leave(Mmu)             or None   EndContextSwitch: what is parked with next
/// </code>
/// In an interrupt the mode is None, whatever it was: calls of the interrupt are made at once.
/// </remarks>
internal sealed class LazyState(int cpu, LazyPolicy policy)
{
    // Pairs entered in interrupt context, where they have no effect; all levels of interrupts together.
    private int _ignored;

    /// <summary>The mode entered, in an interrupt too.</summary>
    public LazyMode Entered { get; private set; }

    /// <summary>The mode as operations see it.</summary>
    public LazyMode Mode => InterruptDepth == 0 ? Entered : LazyMode.None;

    /// <summary>Where the mode was entered.</summary>
    public VirtualAddress EnteredAt { get; private set; }

    /// <summary>How often the mode was entered beyond the first time.</summary>
    public int Depth { get; private set; }

    public int InterruptDepth { get; private set; }

    /// <summary>Where the innermost interrupt was entered.</summary>
    public VirtualAddress InterruptedAt { get; private set; }

    public bool IsPreemptible { get; set; }

    /// <summary>Refuses a mode that may not be entered.</summary>
    /// <returns>Whether the CPU changes to it: neither counted nor of no effect.</returns>
    public bool CheckEnter(LazyMode mode, VirtualAddress site)
    {
        CheckOne(mode);
        if (InterruptDepth > 0)
        {
            return policy.CountsNesting ? false : throw LazyErrors.InInterrupt(this, cpu, site, "a lazy mode is entered in an interrupt");
        }

        CheckPreemption(mode, site);
        if (Entered == LazyMode.None)
        {
            return true;
        }

        return Entered == mode && policy.CountsNesting && Depth < int.MaxValue ? false : throw LazyErrors.Active(this, cpu, mode, site);
    }

    /// <summary>Enters a mode that <see cref="CheckEnter"/> let pass.</summary>
    public void Enter(LazyMode mode, VirtualAddress site)
    {
        if (InterruptDepth > 0)
        {
            _ignored++;
        }
        else if (Entered == mode)
        {
            Depth++;
        }
        else
        {
            Set(mode, 0, site);
        }
    }

    /// <summary>Refuses to leave a mode that the CPU is not in.</summary>
    /// <returns>Whether the CPU is in no mode then.</returns>
    public bool CheckLeave(LazyMode mode, VirtualAddress site)
    {
        CheckOne(mode);
        if (InterruptDepth > 0)
        {
            return policy.CountsNesting && _ignored > 0
                ? false : throw LazyErrors.InInterrupt(this, cpu, site, "a lazy mode is left in an interrupt that did not enter it");
        }

        if (Entered != mode)
        {
            throw LazyErrors.Unpaired(this, cpu, mode, site);
        }

        CheckPreemption(mode, site);
        return Depth == 0;
    }

    /// <summary>Leaves a mode that <see cref="CheckLeave"/> let pass.</summary>
    public void Leave()
    {
        if (InterruptDepth > 0)
        {
            _ignored--;
        }
        else if (Depth > 0)
        {
            Depth--;
        }
        else
        {
            Set(LazyMode.None, 0, default);
        }
    }

    /// <summary>Refuses a context switch that may not begin.</summary>
    public void CheckStart(LazyTask previous, VirtualAddress site)
    {
        CheckSwitch(site);
        previous.CheckIdle(cpu, site, "is switched away from");
        if (Entered == LazyMode.Cpu || (Entered == LazyMode.Mmu && !policy.ParksModes))
        {
            throw LazyErrors.Active(this, cpu, LazyMode.Cpu, site);
        }
    }

    /// <summary>Refuses a context switch that may not end.</summary>
    public void CheckEnd(LazyTask next, VirtualAddress site)
    {
        CheckSwitch(site);
        next.CheckAlive(cpu, site);
        if (Entered != LazyMode.Cpu || Depth != 0)
        {
            throw LazyErrors.Unpaired(this, cpu, LazyMode.Cpu, site);
        }
    }

    /// <summary>Puts the mode away with the task that has run.</summary>
    public void Park(LazyTask previous)
    {
        previous.Park(Entered, Depth, EnteredAt, cpu);
        Set(LazyMode.None, 0, default);
    }

    /// <summary>Leaves CPU mode and takes up what is parked with the task that runs now: a mode, or none.</summary>
    public void Resume(LazyTask next)
    {
        Set(next.Parked, next.Depth, next.EnteredAt);
        next.Resume();
    }

    public void EnterInterrupt(VirtualAddress site)
    {
        InterruptDepth = checked(InterruptDepth + 1);
        InterruptedAt = site;
    }

    public void LeaveInterrupt(VirtualAddress site)
    {
        if (InterruptDepth == 0)
        {
            throw LazyErrors.InInterrupt(this, cpu, site, "an interrupt is left that was not entered");
        }

        if (InterruptDepth == 1 && _ignored > 0)
        {
            throw LazyErrors.InInterrupt(this, cpu, site, "an interrupt is left with a lazy mode it entered");
        }

        InterruptDepth--;
    }

    public void Set(LazyMode mode, int depth, VirtualAddress site)
    {
        Entered = mode;
        Depth = depth;
        EnteredAt = site;
    }

    private static void CheckOne(LazyMode mode)
    {
        if (mode is not (LazyMode.Mmu or LazyMode.Cpu))
        {
            throw new ArgumentOutOfRangeException(nameof(mode), mode, "a CPU enters and leaves one mode: Mmu or Cpu");
        }
    }

    // CPU mode is that of a context switch, so it is never preempted. MMU mode may be where tasks keep it.
    private void CheckPreemption(LazyMode mode, VirtualAddress site)
    {
        if (IsPreemptible && (mode == LazyMode.Cpu || !policy.ParksModes))
        {
            throw LazyErrors.Preemptible(
                this, cpu, site, $"{LazyErrors.Name(mode)} mode is entered or left while the CPU may be preempted");
        }
    }

    private void CheckSwitch(VirtualAddress site)
    {
        if (InterruptDepth > 0)
        {
            throw LazyErrors.InInterrupt(this, cpu, site, "a context switch in an interrupt");
        }

        if (IsPreemptible)
        {
            throw LazyErrors.Preemptible(this, cpu, site, "a context switch while the CPU may be preempted");
        }
    }
}
