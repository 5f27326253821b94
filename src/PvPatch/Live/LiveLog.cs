using Microsoft.Extensions.Logging;

namespace PvPatch.Live;

/// <summary>What live patchers write to a log: one line a batch, per site only at debug. Event ids are stable.</summary>
internal static partial class LiveLog
{
    [LoggerMessage(EventId = 1200, EventName = "LiveApplied", Level = LogLevel.Information, Message = "{Result}")]
    public static partial void Applied(ILogger logger, SwitchResult result);

    [LoggerMessage(EventId = 1201, EventName = "LiveFailed", Level = LogLevel.Warning, Message = "{Result}; {Count} findings, the first: {First}")]
    public static partial void Failed(ILogger logger, SwitchResult result, int count, PatchDiagnostic first);

    [LoggerMessage(EventId = 1202, EventName = "LiveSite", Level = LogLevel.Debug, Message = "{Site}")]
    public static partial void Site(ILogger logger, SiteOutcome site);

    [LoggerMessage(EventId = 1203, EventName = "LiveWeakBarrier", Level = LogLevel.Warning,
        Message = "no core-serializing barrier is to be had here; switching uses one that nobody promises to serialize other processors")]
    public static partial void WeakBarrier(ILogger logger);
}
