using PvPatch.Plans;

namespace PvPatch.Live;

// Links that are asked for from inside generated code.
public sealed partial class LivePatcher
{
    /// <summary>How many requests can be queued.</summary>
    public const int MaxRequests = LinkRequests.Capacity;

    /// <summary>Number of queued requests; other threads may be adding to it.</summary>
    public int RequestCount => _applier.Requests.Count;

    /// <summary>
    /// Asks for a link, from a helper that generated code has called for instance: may be called from anywhere. Nothing is written; the
    /// link is made by <see cref="ApplyRequests"/>, before the next batch of this patcher (not of <see cref="Bind"/> nor of a
    /// <see cref="LivePlan"/>), or at the next <see cref="Executor.Safepoint"/> of an executor of the arena, whichever comes first. Waits
    /// for nobody, throws nothing, and allocates nothing but the queue, once.
    /// </summary>
    /// <remarks>
    /// A request stands as long as its site is linked as it was, both blocks are in use, and the site can lead there; one that does not is
    /// dropped with a warning (PV8050) in the result of the batch that takes it out of the queue. Switches between do not matter. Requests
    /// for one site queued twice all the same, by two threads at once, count as one: the later.
    /// </remarks>
    /// <param name="link">A site of this patcher and its target; without a target it is unlinked.</param>
    /// <returns>Whether it is queued.</returns>
    public LinkRequestStatus RequestLink(SiteLink link) =>
        _applier.IsDisposed || Arena.Memory.IsDisposed ? LinkRequestStatus.Refused : _applier.Requests.Add(link);

    /// <summary>
    /// Asks for a link of the site that made a call, by the return address that the call left. See <see cref="RequestLink(SiteLink)"/>.
    /// </summary>
    /// <param name="returnAddress">The return address; see <see cref="CodeArena.TryFindCaller"/>.</param>
    /// <param name="target">Run address of the code the site shall call.</param>
    /// <returns>Whether it is queued; <see cref="LinkRequestStatus.Refused"/> where no site of this patcher made the call.</returns>
    public LinkRequestStatus RequestLink(VirtualAddress returnAddress, VirtualAddress target) =>
        Arena.TryFindCaller(returnAddress, out LiveSite site) ? RequestLink(new SiteLink(site, target)) : LinkRequestStatus.Refused;

    /// <summary>Makes the links that were requested, or throws. See <see cref="TryApplyRequests"/>.</summary>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <returns>What was done.</returns>
    /// <exception cref="PatchException">The batch was refused, taken back or faulted.</exception>
    public ApplyResult ApplyRequests(SwitchOptions? options = null) =>
        TryApplyRequests(options, out ApplyResult result) ? result : throw Failed(result);

    /// <summary>
    /// Makes the links that were requested, as one batch with one barrier. Those that can't be made are left out and told of by warnings
    /// (PV8050); the rest is made.
    /// </summary>
    /// <param name="options">What is known of other threads; a live switch where <see langword="null"/>.</param>
    /// <param name="result">
    /// What was done. Where the batch was refused or taken back, the requests are still queued: this thread is inside generated code
    /// (PV8021), or another's batch is under way (PV8020).
    /// </param>
    /// <returns>Whether the batch was applied.</returns>
    public bool TryApplyRequests(SwitchOptions? options, out ApplyResult result)
    {
        result = _applier.ApplyRequests(options ?? s_live);
        return result.Succeeded;
    }

    /// <summary>As <see cref="ApplyRequests"/>, on a thread at a safepoint; later, where another thread's batch is under way.</summary>
    internal void ApplyRequestsAtSafepoint() => _applier.ApplyRequestsAtSafepoint();
}
