using PvPatch.Linux.Files;

namespace PvPatch.Linux.Symbols;

/// <summary>Reads what a kernel says of itself: <c>Linux version 6.1.0-18-amd64 (…) …</c>.</summary>
internal static class KernelBanner
{
    private const int MostBytes = 80;

    /// <summary>
    /// The word after "Linux version ", at the symbol <c>linux_banner</c>, else in the first data that has it; <see langword="null"/> where
    /// there is none.
    /// </summary>
    public static string? Release(ElfImage elf, KernelSymbols? symbols)
    {
        if (symbols is not null && symbols.TryGetAddress("linux_banner", out VirtualAddress banner)
            && elf.TryGetBytes(banner, MostBytes, out Memory<byte> bytes))
        {
            return ReleaseAt(bytes.Span);
        }

        foreach (ElfSection section in elf.Sections)
        {
            if (!section.IsExecutable && section.HasFileContent && InData(elf.GetBytes(section).Span) is string release)
            {
                return release;
            }
        }

        return null;
    }

    private static ReadOnlySpan<byte> Start => "Linux version "u8;

    private static string? InData(ReadOnlySpan<byte> data)
    {
        for (int at; (at = data.IndexOf(Start)) >= 0; data = data[(at + 1)..])
        {
            // The format of the banner is there too: "Linux version %s (%s)".
            if (ReleaseAt(data[at..]) is string release && char.IsAsciiDigit(release[0]))
            {
                return release;
            }
        }

        return null;
    }

    private static string? ReleaseAt(ReadOnlySpan<byte> text)
    {
        text = text[..Math.Min(text.Length, MostBytes)];
        int end = text.StartsWith(Start) ? text[Start.Length..].IndexOf((byte)' ') : -1;
        return end <= 0 ? null : System.Text.Encoding.ASCII.GetString(text.Slice(Start.Length, end));
    }
}
