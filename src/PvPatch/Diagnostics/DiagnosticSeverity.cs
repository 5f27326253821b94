namespace PvPatch;

/// <summary>How grave a <see cref="PatchDiagnostic"/> is.</summary>
public enum DiagnosticSeverity
{
    /// <summary>Worth knowing; nothing is wrong.</summary>
    Info,

    /// <summary>Something is odd (a slot without an operation, say), but the plan stands.</summary>
    Warning,

    /// <summary>The work was refused. Nothing was written.</summary>
    Error,
}
