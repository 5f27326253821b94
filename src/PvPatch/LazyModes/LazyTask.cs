namespace PvPatch.LazyModes;

/// <summary>A task of the host's, as far as lazy modes go: the MMU mode it was preempted in.</summary>
/// <remarks>Used by one CPU at a time, as the host's scheduler has it.</remarks>
public sealed class LazyTask
{
    /// <summary>Makes a task that is in no mode.</summary>
    /// <param name="name">A name for messages.</param>
    public LazyTask(string name)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        Name = name;
    }

    /// <summary>The task's name.</summary>
    public string Name { get; }

    /// <summary>The mode the task has again when it runs again.</summary>
    public LazyMode Parked { get; private set; }

    /// <summary>Whether the task was ended.</summary>
    public bool HasEnded { get; private set; }

    /// <summary>How often the parked mode was entered beyond the first time.</summary>
    internal int Depth { get; private set; }

    /// <summary>Where the parked mode was entered.</summary>
    internal VirtualAddress EnteredAt { get; private set; }

    /// <summary>The CPU that parked it.</summary>
    internal int Cpu { get; private set; }

    /// <summary>Ends the task. Its mode must have been left before.</summary>
    /// <param name="site">Where.</param>
    /// <exception cref="PatchException">A mode is parked with the task, or it was ended before (PV0111). It stays as it is.</exception>
    public void End(VirtualAddress site)
    {
        CheckIdle(LazyErrors.NoCpu, site, "ends");
        HasEnded = true;
    }

    /// <summary>Refuses a task that has ended, or has a parked mode, where it should be running.</summary>
    internal void CheckIdle(int cpu, VirtualAddress site, string what)
    {
        CheckAlive(cpu, site);
        if (Parked != LazyMode.None)
        {
            throw LazyErrors.Parked(this, cpu, site, what);
        }
    }

    /// <summary>Refuses a task that has ended.</summary>
    internal void CheckAlive(int cpu, VirtualAddress site)
    {
        if (HasEnded)
        {
            throw LazyErrors.Ended(this, cpu, site);
        }
    }

    internal void Park(LazyMode mode, int depth, VirtualAddress enteredAt, int cpu)
    {
        Parked = mode;
        Depth = depth;
        EnteredAt = enteredAt;
        Cpu = cpu;
    }

    internal void Resume() => Park(LazyMode.None, 0, default, LazyErrors.NoCpu);
}
