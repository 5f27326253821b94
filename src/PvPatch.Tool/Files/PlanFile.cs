using PvPatch.Plans;

namespace PvPatch.Tool.Files;

/// <summary>Reads stored plans.</summary>
internal static class PlanFile
{
    // Plans of kernels have 2 MB; one of 100 000 sites would have 40.
    private const int Largest = 128 << 20;

    /// <exception cref="ToolFailure">The file cannot be read (PV7005) or holds no plan (PV5001, PV5002).</exception>
    public static PatchPlan Read(string path)
    {
        ReadOnlyMemory<byte> text = InputFile.Read(
            path, Largest, PatchDiagnostic.Error(ToolDiagnosticCodes.PlanUnreadable, "the stored plan cannot be read") with
            {
                Help = "Give the file that patch --save-plan or plan --json wrote.",
            });
        return PlanJson.TryRead(text, out PatchPlan? plan, out PatchDiagnostic? error)
            ? plan : throw new ToolFailure(error with { Source = path });
    }
}
