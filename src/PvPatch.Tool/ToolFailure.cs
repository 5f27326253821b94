using PvPatch.Linux;

namespace PvPatch.Tool;

/// <summary>Failure of a command: carries its findings and the exit code.</summary>
internal sealed class ToolFailure : Exception
{
    public ToolFailure(params IReadOnlyList<PatchDiagnostic> diagnostics)
        : base(diagnostics[0].Message)
    {
        Diagnostics = diagnostics;
        ExitCode = ExitCodeOf(diagnostics[0].Code);
    }

    public IReadOnlyList<PatchDiagnostic> Diagnostics { get; }

    public ExitCode ExitCode { get; }

    /// <summary>The exit code of a finding.</summary>
    public static ExitCode ExitCodeOf(string code) => code switch
    {
        KernelDiagnosticCodes.DecompressorMissing => ExitCode.MissingProgram,
        KernelDiagnosticCodes.OutputUnwritable => ExitCode.OutputUnwritable,
        KernelDiagnosticCodes.BackendNotInImage or KernelDiagnosticCodes.SymbolUnknown or DiagnosticCodes.UnknownSlot
            or DiagnosticCodes.UnknownBackend => ExitCode.Usage,
        ToolDiagnosticCodes.OutputIsInput or ToolDiagnosticCodes.NotThatOriginal or ToolDiagnosticCodes.NotAPlanOfImage
            or KernelDiagnosticCodes.SlotTargetBreaksConvention => ExitCode.Refused,
        ToolDiagnosticCodes.PlanUnreadable or ToolDiagnosticCodes.OptionFileUnreadable or ToolDiagnosticCodes.OutOfMemory =>
            ExitCode.BadInput,
        ToolDiagnosticCodes.Cancelled => ExitCode.Cancelled,
        ToolDiagnosticCodes.Internal => ExitCode.Internal,
        _ when code.StartsWith("PV3", StringComparison.Ordinal) || code.StartsWith("PV4", StringComparison.Ordinal) => ExitCode.Refused,
        _ when code.StartsWith("PV7", StringComparison.Ordinal) => ExitCode.Usage,
        _ => ExitCode.BadInput,
    };
}
