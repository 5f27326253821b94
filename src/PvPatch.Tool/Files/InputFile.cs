namespace PvPatch.Tool.Files;

/// <summary>Reads files that an option names: plans, symbols, slots.</summary>
internal static class InputFile
{
    private const int Step = 1 << 16;

    /// <summary>All bytes of a file. A pipe is read to its end; a device, which may have none, is not opened.</summary>
    /// <param name="path">The file.</param>
    /// <param name="largest">The largest accepted size in bytes.</param>
    /// <param name="error">The diagnostic for a file that cannot be read.</param>
    /// <exception cref="ToolFailure">It cannot be read.</exception>
    public static ReadOnlyMemory<byte> Read(string path, int largest, PatchDiagnostic error)
    {
        if (FileIdentity.TryGet(path, out FileIdentity identity) && identity.Kind is FileKind.Device)
        {
            throw new ToolFailure(error with { Source = path, Found = "a device or socket", Expected = "a file" });
        }

        if (Directory.Exists(path))
        {
            throw new ToolFailure(error with { Source = path, Found = "a directory", Expected = "a file" });
        }

        try
        {
            using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 0);
            long known = file.CanSeek ? file.Length : 0; // 0 also for the files of /proc
            return known <= largest ? Read(file, path, (int)known, largest, error) : throw TooLarge(path, $"{known} bytes", largest, error);
        }
        catch (Exception exception) when (
            exception is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            throw new ToolFailure(error with { Source = path, Found = exception.Message });
        }
    }

    /// <summary>All bytes of a file that an option names.</summary>
    /// <exception cref="ToolFailure">It cannot be read (PV7007).</exception>
    public static ReadOnlyMemory<byte> Read(string path, string option, int largest) =>
        Read(path, largest, PatchDiagnostic.Error(ToolDiagnosticCodes.OptionFileUnreadable, $"the file of {option} cannot be read"));

    private static ReadOnlyMemory<byte> Read(FileStream file, string path, int known, int largest, PatchDiagnostic error)
    {
        byte[] content = new byte[Math.Min(known + 1, largest + 1)]; // one more, to see the end
        int length = 0;
        while (true)
        {
            int count = file.Read(content, length, content.Length - length);
            length += count;
            if (count == 0)
            {
                return content.AsMemory(0, length);
            }

            if (length > largest)
            {
                throw TooLarge(path, $"more than {largest} bytes", largest, error);
            }

            if (length == content.Length)
            {
                Array.Resize(ref content, (int)Math.Min(Math.Max(2L * length, Step), largest + 1L));
            }
        }
    }

    private static ToolFailure TooLarge(string path, string found, int largest, PatchDiagnostic error) =>
        new(error with { Source = path, Found = found, Expected = $"at most {largest} bytes" });
}
