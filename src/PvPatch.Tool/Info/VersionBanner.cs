namespace PvPatch.Tool.Info;

/// <summary>Finds the banner of a kernel: <c>Linux version 6.1.0-18-amd64 (…) …</c>.</summary>
internal static class VersionBanner
{
    private const int Longest = 512;
    private const int MostCandidates = 64;

    /// <summary>The banner of an unpacked kernel; <see langword="null"/> where it has none.</summary>
    public static string? Find(ReadOnlySpan<byte> image)
    {
        ReadOnlySpan<byte> start = "Linux version "u8;
        for (int i = 0; i < MostCandidates; i++)
        {
            int at = image.IndexOf(start);
            if (at < 0)
            {
                return null;
            }

            image = image[at..];
            if (image.Length > start.Length && char.IsAsciiDigit((char)image[start.Length]))
            {
                ReadOnlySpan<byte> text = image[..Math.Min(image.Length, Longest)];
                int end = text.IndexOfAny((byte)0, (byte)'\n');
                return System.Text.Encoding.UTF8.GetString(end < 0 ? text : text[..end]).Trim();
            }

            image = image[start.Length..]; // a format string, or the documentation of one
        }

        return null;
    }
}
