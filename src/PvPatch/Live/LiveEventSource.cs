using System.Diagnostics.Tracing;

namespace PvPatch.Live;

/// <summary>The event source <c>PvPatch-Live</c>: a start and a stop for each batch, for traces. Event ids are stable.</summary>
[EventSource(Name = "PvPatch-Live")]
internal sealed class LiveEventSource : EventSource
{
    public static readonly LiveEventSource Log = new();

    private LiveEventSource()
    {
    }

    [Event(1, Level = EventLevel.Informational, Message = "{1} batch to {0}")]
    public void BatchStart(string target, string mode)
    {
        if (IsEnabled())
        {
            WriteEvent(1, target, mode);
        }
    }

    [Event(2, Level = EventLevel.Informational, Message = "{0} after {3} us: {1} sites written, {2} barriers")]
    public void BatchStop(string status, int written, int barriers, long microseconds)
    {
        if (IsEnabled())
        {
            WriteEvent(2, status, written, barriers, microseconds);
        }
    }
}
