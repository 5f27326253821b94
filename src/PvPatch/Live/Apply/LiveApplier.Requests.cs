using System.Diagnostics;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

// The links that generated code has asked for are made by batches of their own, before others.
internal sealed partial class LiveApplier
{
    private static readonly LiveChanges s_none = new();
    private static readonly SwitchOptions s_requests = new();

    /// <summary>The queue.</summary>
    public LinkRequests Requests { get; }

    /// <summary>Applies what is queued.</summary>
    public ApplyResult ApplyRequests(SwitchOptions options)
    {
        var report = new ApplyReport("requested links");
        PatchDiagnostic? misuse = Check(s_none, options);
        if (misuse is null && _arena.PatchLock.TryEnter(options.WaitForOther, out PatchLock? held, out misuse, options.Cancellation))
        {
            ApplyResult result;
            using (held)
            {
                result = ApplyRequestsHeld(options);
            }

            return Finish(result);
        }

        report.Add(misuse!);
        return Finish(Refused(report));
    }

    /// <summary>
    /// Applies what is queued on a thread that is at a safepoint, unless another thread's batch is under way: then later.
    /// </summary>
    public void ApplyRequestsAtSafepoint()
    {
        if (Requests.Count == 0 || Check(s_none, s_requests) is not null)
        {
            return;
        }

        if (!_arena.PatchLock.TryEnter(wait: false, out PatchLock? held, out _))
        {
            _arena.Executors.HasRequests = true;
            return;
        }

        ApplyResult result;
        using (held)
        {
            result = ApplyRequestsHeld(s_requests);
        }

        _ = Finish(result);
    }

    /// <summary>Applies what is queued, before a batch of other changes, under its lock.</summary>
    /// <returns>What was done; nothing where nothing was queued, or where it is not the time.</returns>
    private ApplyResult? ApplyRequestsBefore(LiveChanges changes, SwitchOptions options, LivePlan? promised)
    {
        // A plan that was promised was made for the code as it is. New blocks are bound by threads that may be inside.
        bool isTime = promised is null && !changes.OnlyBinds && _arena.Barrier != BarrierKind.None;
        return isTime && Requests.Count > 0 ? ApplyRequestsHeld(s_requests with { Cancellation = options.Cancellation }) : null;
    }

    private ApplyResult ApplyRequestsHeld(SwitchOptions options)
    {
        long start = Stopwatch.GetTimestamp();
        LiveEventSource.Log.BatchStart("requested links", options.Mode);
        return Requests.Run((changes, report) => ApplyHeld(changes, options, promised: null, report, start));
    }
}
