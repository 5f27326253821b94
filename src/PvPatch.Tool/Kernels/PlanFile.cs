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
        byte[] text = ReadBytes(path);
        return PlanJson.TryRead(text, out PatchPlan? plan, out PatchDiagnostic? error) ? plan : throw new ToolFailure(error with { Source = path });
    }

    private static byte[] ReadBytes(string path)
    {
        try
        {
            using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read);
            if (file.CanSeek && file.Length > Largest)
            {
                throw Unreadable(path, $"{file.Length} bytes", $"at most {Largest} bytes");
            }

            using var content = new MemoryStream();
            byte[] buffer = new byte[1 << 16];
            for (int count; (count = file.Read(buffer)) > 0;)
            {
                content.Write(buffer, 0, count);
                if (content.Length > Largest)
                {
                    throw Unreadable(path, $"more than {Largest} bytes", $"at most {Largest} bytes");
                }
            }

            return content.ToArray();
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            throw Unreadable(path, exception.Message, null);
        }
    }

    private static ToolFailure Unreadable(string path, string found, string? expected) =>
        new(PatchDiagnostic.Error(ToolDiagnosticCodes.PlanUnreadable, "the stored plan cannot be read") with
        {
            Source = path,
            Found = found,
            Expected = expected,
            Help = "Give the file that patch --save-plan or plan --json wrote.",
        });
}
