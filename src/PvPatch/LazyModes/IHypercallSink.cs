using System.Diagnostics.CodeAnalysis;

namespace PvPatch.LazyModes;

/// <summary>What makes the calls of a <see cref="LazyCpu{TCall}"/>: the host's hypercall.</summary>
/// <typeparam name="TCall">One call: its number and what it passes in registers.</typeparam>
/// <remarks>
/// Its methods may not use the queue they are called by, which is refused (PV0105). What they throw reaches the caller of the operation
/// that caused it, as the inner exception of a <see cref="PatchException"/> (PV0107) unless it is one; calls that are not completed stay
/// queued.
/// </remarks>
public interface IHypercallSink<TCall>
    where TCall : struct
{
    /// <summary>
    /// Makes the calls of a batch in their order, and says of each that it is made (<see cref="HypercallBatch{TCall}.Complete"/>). Called
    /// again with the rest where only some were made; a sink that makes none of them is an error (PV0108).
    /// </summary>
    /// <param name="batch">The calls. Empty only where <see cref="LazyPolicy.LeaveAlwaysCalls"/> asks for that.</param>
    [SuppressMessage("Naming", "CA1716", Justification = "A call is what it makes; a host in Visual Basic writes the name in brackets.")]
    public void Call(HypercallBatch<TCall> batch);

    /// <summary>Learns that a call was made and failed. The calls behind it were made nevertheless.</summary>
    /// <param name="failed">The call.</param>
    /// <param name="result">Its result, negative.</param>
    /// <param name="site">Where it was queued.</param>
    public void Failed(in TCall failed, long result, VirtualAddress site);

    /// <summary>
    /// Lets the last call queued do what another one is to do as well, by a longer array of arguments. Asked where
    /// <see cref="LazyPolicy.Extends"/> is set and there is room for the arguments.
    /// </summary>
    /// <param name="last">The last call queued; changed (its number of arguments, say) where it can do so.</param>
    /// <param name="other">The other call.</param>
    /// <returns>Whether <paramref name="last"/> was changed. The arguments of the other are then added to its own.</returns>
    public bool TryExtend(ref TCall last, in TCall other) => false;

    /// <summary>
    /// Learns the mode of the CPU where <see cref="LazyPolicy.TellsMode"/> is set: behind entering one, before leaving it.
    /// </summary>
    /// <param name="mode">The mode.</param>
    public void SetMode(LazyMode mode)
    {
    }
}
