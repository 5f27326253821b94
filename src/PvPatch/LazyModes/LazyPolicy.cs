namespace PvPatch.LazyModes;

/// <summary>
/// The rules of one hypervisor's batching, as data: how much is queued, in which modes, in what order calls are made, and whether modes
/// are nested, parked and observed.
/// </summary>
/// <remarks>
/// The four policies given are those of Linux under Xen, VMI, lguest and KVM. Others are made of them by <c>with</c>; what is out of range
/// is refused when a <see cref="LazyCpu{TCall}"/> is made.
/// </remarks>
public sealed record LazyPolicy
{
    /// <summary>
    /// Xen's multicalls as Linux 6.12 makes them: 32 calls and 512 bytes of arguments, of which the last byte is never used; calls
    /// whose arguments are arrays grow in place; entering a mode again is counted.
    /// </summary>
    public static LazyPolicy Xen { get; } = new()
    {
        Name = "Xen multicall",
        Capacity = 32,
        ArgumentBytes = 511, // the space is full at "end >= 512": an array of 32 updates of 16 bytes does not fit
        Callbacks = 32,
        CountsNesting = true,
        Extends = true,
    };

    /// <summary>
    /// VMI's lazy modes (Linux 2.6.21 on): the guest queues nothing, it tells the hypervisor's ROM the mode, and that queues.
    /// </summary>
    public static LazyPolicy Vmi { get; } = new() { Name = "VMI mode", DefersIn = LazyMode.None, TellsMode = true };

    /// <summary>
    /// lguest's ring (Linux 2.6.24 to 3.6): 64 calls without arguments of their own in memory; the hypervisor drains the ring before any
    /// call made at once, such as the one that finds the ring full, and the call at the end of a mode is made even where nothing is queued.
    /// </summary>
    public static LazyPolicy Lguest { get; } = new()
    {
        Name = "lguest ring",
        Capacity = 64,
        OverflowIsMade = true,
        LeaveAlwaysCalls = true,
    };

    /// <summary>
    /// KVM's queue of page-table updates (Linux 2.6.26 on): 1,024 bytes of records, in MMU mode only; a call made at once goes before those
    /// queued.
    /// </summary>
    public static LazyPolicy Kvm { get; } = new()
    {
        Name = "KVM queue",
        Capacity = 128, // the shortest record, a flush of the TLB, has 8 bytes
        ArgumentBytes = 1024,
        DefersIn = LazyMode.Mmu,
        KeepsOrder = false,
    };

    /// <summary>A name for messages.</summary>
    public required string Name { get; init; }

    /// <summary>Most calls that are queued, 0 to 65,536; with 0 every call is made at once.</summary>
    public int Capacity { get; init; }

    /// <summary>Bytes for the arguments of all calls queued, 0 to 1,048,576.</summary>
    public int ArgumentBytes { get; init; }

    /// <summary>What the arguments of each call are aligned to within that space, in bytes: a power of two up to 64.</summary>
    public int ArgumentAlignment { get; init; } = 8;

    /// <summary>Most functions that wait for one flush, 0 to 65,536.</summary>
    public int Callbacks { get; init; }

    /// <summary>The modes in which calls are put off; in others every call is made at once.</summary>
    public LazyMode DefersIn { get; init; } = LazyMode.Mmu | LazyMode.Cpu;

    /// <summary>
    /// Whether entering the mode that is active already is counted, so that only the last leave ends it (Linux 6.12). Otherwise it is
    /// refused.
    /// </summary>
    public bool CountsNesting { get; init; }

    /// <summary>
    /// Whether MMU mode may be preempted: a context switch parks it with the task, which has it again when it runs again (Linux 2.6.31 and
    /// later). Otherwise modes are entered and left with preemption off, and a context switch within one is refused.
    /// </summary>
    public bool ParksModes { get; init; } = true;

    /// <summary>
    /// Whether an operation that observes CPU state is refused in a lazy mode. Otherwise it makes the queued calls first.
    /// </summary>
    public bool RefusesObservers { get; init; }

    /// <summary>Whether a call may grow the last one queued (<see cref="IHypercallSink{TCall}.TryExtend"/>).</summary>
    public bool Extends { get; init; }

    /// <summary>
    /// Whether a call made at once is made behind those queued, which go first. Otherwise it is made alone, and those queued stay queued.
    /// </summary>
    public bool KeepsOrder { get; init; } = true;

    /// <summary>
    /// Whether the call that finds the queue full is made at once, together with those queued. Otherwise those are made, and it is the
    /// first of the next batch.
    /// </summary>
    public bool OverflowIsMade { get; init; }

    /// <summary>Whether the sink is called when a mode is left though nothing is queued.</summary>
    public bool LeaveAlwaysCalls { get; init; }

    /// <summary>Whether the sink is told of every change of mode (<see cref="IHypercallSink{TCall}.SetMode"/>).</summary>
    public bool TellsMode { get; init; }

    /// <summary>
    /// The same under the rules lazy modes came with in December 2006: one mode at a time, never nested, never preempted, and nothing that
    /// observes CPU state within one.
    /// </summary>
    /// <returns>The strict policy.</returns>
    public LazyPolicy Strict() =>
        this with { Name = Name + ", strict", CountsNesting = false, ParksModes = false, RefusesObservers = true };

    /// <summary>Refuses what no queue can be made of.</summary>
    internal void Check()
    {
        ArgumentException.ThrowIfNullOrEmpty(Name);
        CheckRange(Capacity, 1 << 16, nameof(Capacity));
        CheckRange(ArgumentBytes, 1 << 20, nameof(ArgumentBytes));
        CheckRange(Callbacks, 1 << 16, nameof(Callbacks));
        CheckRange((int)DefersIn, (int)(LazyMode.Mmu | LazyMode.Cpu), nameof(DefersIn));
        if (ArgumentAlignment is < 1 or > 64 || !int.IsPow2(ArgumentAlignment))
        {
            throw new ArgumentOutOfRangeException(nameof(ArgumentAlignment), ArgumentAlignment, "not a power of two up to 64");
        }

        static void CheckRange(int value, int most, string name)
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value, name);
            ArgumentOutOfRangeException.ThrowIfGreaterThan(value, most, name);
        }
    }
}
