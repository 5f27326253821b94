namespace PvPatch.KernelTests.Harness;

/// <summary>A Debian package to fetch.</summary>
/// <param name="Suite">Suite of the archive, for example bookworm or sid.</param>
/// <param name="Package">Package name; for a kernel a metapackage (linux-image-amd64) or a real one.</param>
/// <param name="Architecture">Debian architecture: amd64 or i386.</param>
public sealed record PackageRequest(string Suite, string Package, string Architecture = "amd64")
{
    /// <summary>Name of the entry in the cache; every part is free of slashes and blanks in Debian.</summary>
    internal string CacheName => $"{Suite}_{Package}_{Architecture}";

    /// <summary>Reads suite:package or suite:package:architecture.</summary>
    public static PackageRequest Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        string[] parts = text.Split(':');
        bool wellFormed = parts.Length is 2 or 3
            && parts.All(part => part.Length > 0 && part[0] != '.' && part[0] != '-' && part.All(IsNameCharacter));
        if (!wellFormed)
        {
            throw new FormatException($"'{text}' is not suite:package or suite:package:architecture.");
        }

        return parts.Length == 2 ? new(parts[0], parts[1]) : new(parts[0], parts[1], parts[2]);
    }

    public override string ToString()
    {
        return $"{Suite}:{Package}:{Architecture}";
    }

    private static bool IsNameCharacter(char c)
    {
        return char.IsAsciiLetterOrDigit(c) || c is '.' or '-' or '+' or '~' or '_';
    }
}
