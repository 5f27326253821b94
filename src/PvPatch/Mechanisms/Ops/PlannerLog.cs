using Microsoft.Extensions.Logging;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>What planners write to a log: one line a plan, per site only at debug. Event ids are stable.</summary>
internal static partial class PlannerLog
{
    [LoggerMessage(EventId = 1000, EventName = "Planned", Level = LogLevel.Information,
        Message = "planned {Sites} sites for {Backend} by {Rules}: {Summary}")]
    public static partial void Planned(ILogger logger, int sites, string backend, string rules, PlanSummary summary);

    [LoggerMessage(EventId = 1001, EventName = "PlannedSite", Level = LogLevel.Debug, Message = "{Site}")]
    public static partial void PlannedSite(ILogger logger, SiteDecision site);

    [LoggerMessage(EventId = 1002, EventName = "PlanFailed", Level = LogLevel.Warning,
        Message = "no plan for {Backend} by {Rules}; {Count} findings, the first: {First}")]
    public static partial void Failed(ILogger logger, string backend, string rules, int count, PatchDiagnostic first);
}
