using Microsoft.Extensions.Logging;

namespace PvPatch.Plans;

/// <summary>What plans write to a log: one line for each batch. Event ids are stable.</summary>
internal static partial class PlanLog
{
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
