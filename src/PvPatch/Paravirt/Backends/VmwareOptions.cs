namespace PvPatch.Paravirt;

/// <summary>What a VMware host answers about clocks, each with those before it.</summary>
public enum VmwareClock
{
    /// <summary>Nothing: the guest measures its own clock.</summary>
    None,

    /// <summary>How fast the time-stamp counter runs (the backdoor's command 45).</summary>
    Frequency,

    /// <summary>How much time was stolen, too (command 91), also where reporting it is switched off.</summary>
    StolenTime,
}

/// <summary>What decides which slots a VMware guest changes. The defaults are a present host.</summary>
public sealed record VmwareOptions
{
    /// <summary>What the host answers about clocks. Only kernels to 5.10 have slots for that.</summary>
    public VmwareClock Clock { get; init; } = VmwareClock.StolenTime;

    /// <summary>Whether the kernel was started with <c>no-vmw-sched-clock</c>.</summary>
    public bool NoSchedClock { get; init; }
}
