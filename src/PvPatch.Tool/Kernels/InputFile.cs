namespace PvPatch.Tool.Kernels;

/// <summary>Reads files that an option names: plans, symbols, slots.</summary>
internal static class InputFile
{
    /// <summary>All bytes of a file.</summary>
    /// <param name="path">The file.</param>
    /// <param name="largest">The most bytes it may have.</param>
    /// <param name="error">What to say where it cannot be read.</param>
    /// <exception cref="ToolFailure">It cannot be read.</exception>
    public static byte[] Read(string path, long largest, PatchDiagnostic error)
    {
        try
        {
            using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read);
            if (file.CanSeek && file.Length > largest)
            {
                throw TooLarge(path, $"{file.Length} bytes", largest, error);
            }

            using var content = new MemoryStream();
            byte[] buffer = new byte[1 << 16];
            for (int count; (count = file.Read(buffer)) > 0;)
            {
                content.Write(buffer, 0, count);
                if (content.Length > largest)
                {
                    throw TooLarge(path, $"more than {largest} bytes", largest, error);
                }
            }

            return content.ToArray();
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            throw new ToolFailure(error with { Source = path, Found = exception.Message });
        }
    }

    /// <summary>All bytes of a file that an option names.</summary>
    /// <exception cref="ToolFailure">It cannot be read (PV7007).</exception>
    public static byte[] Read(string path, string option, long largest) =>
        Read(path, largest, PatchDiagnostic.Error(ToolDiagnosticCodes.OptionFileUnreadable, $"the file of {option} cannot be read"));

    private static ToolFailure TooLarge(string path, string found, long largest, PatchDiagnostic error) =>
        new(error with { Source = path, Found = found, Expected = $"at most {largest} bytes" });
}
