namespace PvPatch.LazyModes;

/// <summary>Calls that are to be made now, in their order, with their arguments. Valid until the sink returns.</summary>
/// <typeparam name="TCall">One call.</typeparam>
public readonly ref struct HypercallBatch<TCall>
    where TCall : struct
{
    private readonly CallQueue<TCall> _queue;

    internal HypercallBatch(CallQueue<TCall> queue, FlushReason reason, LazyMode mode)
    {
        _queue = queue;
        Reason = reason;
        Mode = mode;
    }

    /// <summary>Why the calls are made.</summary>
    public FlushReason Reason { get; }

    /// <summary>The mode of the CPU while they are made: the one that is left, if they are made for that.</summary>
    public LazyMode Mode { get; }

    /// <summary>Number of the CPU.</summary>
    public int Cpu => _queue.Cpu;

    /// <summary>Number of calls not completed yet.</summary>
    public int Count => Calls.Length;

    /// <summary>The calls not completed yet.</summary>
    public ReadOnlySpan<TCall> Calls => _queue.Buffer.WindowCalls;

    /// <summary>The arguments of one call.</summary>
    /// <param name="index">Its index in <see cref="Calls"/>.</param>
    /// <returns>The bytes.</returns>
    public ReadOnlySpan<byte> ArgumentsOf(int index) => _queue.Buffer.WindowArguments(index);

    /// <summary>
    /// Where the arguments of one call lie in the CPU's space for them, in bytes from its start: what a host adds to the address at which
    /// its hypervisor sees that space.
    /// </summary>
    /// <param name="index">Its index in <see cref="Calls"/>.</param>
    /// <returns>The offset.</returns>
    public int ArgumentOffsetOf(int index) => _queue.Buffer.WindowPlace(index).Start;

    /// <summary>Where one call was queued.</summary>
    /// <param name="index">Its index in <see cref="Calls"/>.</param>
    /// <returns>The site that was given with it.</returns>
    public VirtualAddress SiteOf(int index) => _queue.Buffer.WindowPlace(index).Site;

    /// <summary>Says that the first call not completed yet was made. It is no longer in <see cref="Calls"/>.</summary>
    /// <param name="result">Its result; a negative one is a failure.</param>
    /// <exception cref="PatchException">All calls are completed already (PV0108).</exception>
    public void Complete(long result) => _queue.Complete(result, Reason);

    /// <summary>Says that the first calls were made, by the number of bytes of arguments the hypervisor took of them.</summary>
    /// <param name="bytes">Number of bytes.</param>
    /// <exception cref="PatchException">The bytes are not those of a number of whole calls (PV0108); none is completed.</exception>
    public void CompleteBytes(long bytes) => _queue.CompleteBytes(bytes, Reason);
}
