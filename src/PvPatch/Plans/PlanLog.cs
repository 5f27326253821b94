using Microsoft.Extensions.Logging;

namespace PvPatch.Plans;

/// <summary>
/// What planners and plans write to a log: a line for each plan made, applied or verified, for each site at debug only. Event ids are
/// stable.
/// </summary>
internal static partial class PlanLog
{
    [LoggerMessage(EventId = 1000, EventName = "Planned", Level = LogLevel.Information,
        Message = "planned {Sites} sites for {Backend} by {Rules}: {Summary}")]
    public static partial void Planned(ILogger logger, int sites, string backend, string rules, PlanSummary summary);

    [LoggerMessage(EventId = 1001, EventName = "PlannedSite", Level = LogLevel.Debug, Message = "{Site}")]
    public static partial void PlannedSite(ILogger logger, SiteDecision site);

    [LoggerMessage(EventId = 1002, EventName = "PlanFailed", Level = LogLevel.Warning,
        Message = "no plan for {Backend} by {Rules}; {Count} findings, the first: {First}")]
    public static partial void Failed(ILogger logger, string backend, string rules, int count, PatchDiagnostic first);

    [LoggerMessage(EventId = 1100, EventName = "PlanApplied", Level = LogLevel.Information,
        Message = "{What} plan for {Backend}: {Written} sites written, {AlreadyThere} already there")]
    public static partial void Applied(ILogger logger, string what, string backend, int written, int alreadyThere);

    [LoggerMessage(EventId = 1101, EventName = "PlanRefused", Level = LogLevel.Warning,
        Message = "refused to {What} the plan for {Backend}, nothing written; {Count} findings, the first: {First}")]
    public static partial void Refused(ILogger logger, string what, string backend, int count, PatchDiagnostic first);

    [LoggerMessage(EventId = 1102, EventName = "PlanVerified", Level = LogLevel.Information,
        Message = "verified plan for {Backend}: {Patched} sites patched, {Original} original, {Others} other")]
    public static partial void Verified(ILogger logger, string backend, int patched, int original, int others);
}
