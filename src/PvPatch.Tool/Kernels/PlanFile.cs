using PvPatch.Plans;

namespace PvPatch.Tool.Kernels;

/// <summary>Reads stored plans.</summary>
internal static class PlanFile
{
    // A plan of 100 000 sites has some 40 MB.
    private const long Largest = 1L << 30;

    /// <exception cref="ToolFailure">The file cannot be read (PV7005) or holds no plan (PV5001, PV5002).</exception>
    public static PatchPlan Read(string path)
    {
        byte[] text = InputFile.Read(path, Largest, PatchDiagnostic.Error(ToolDiagnosticCodes.PlanUnreadable, "the stored plan cannot be read") with
        {
            Help = "Give the file that patch --save-plan or plan --json wrote.",
        });
        return PlanJson.TryRead(text, out PatchPlan? plan, out PatchDiagnostic? error) ? plan : throw new ToolFailure(error with { Source = path });
    }
}
