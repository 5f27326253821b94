namespace PvPatch.KernelTests.Harness;

/// <summary>The Debian archive addresses this machine already uses, read from its apt sources.</summary>
/// <param name="Main">Address of the main archive.</param>
/// <param name="Security">Address of the security archive, if the machine has one.</param>
internal sealed record DebianMirrors(string Main, string? Security)
{
    /// <summary>Reads /etc/apt/sources.list and what stands in sources.list.d beside it.</summary>
    /// <exception cref="TestEnvironmentException">There is no Debian archive among the sources.</exception>
    public static DebianMirrors OfThisMachine()
    {
        List<string> addresses = [];
        List<string> files = ["/etc/apt/sources.list"];
        if (Directory.Exists("/etc/apt/sources.list.d"))
        {
            files.AddRange(Directory.GetFiles("/etc/apt/sources.list.d").Order(StringComparer.Ordinal));
        }

        foreach (string file in files.Where(File.Exists))
        {
            string text = File.ReadAllText(file);
            if (file.EndsWith(".list", StringComparison.Ordinal))
            {
                addresses.AddRange(OneLineAddresses(text));
            }
            else if (file.EndsWith(".sources", StringComparison.Ordinal))
            {
                addresses.AddRange(StanzaAddresses(text));
            }
        }

        return TryChoose(addresses) ?? throw new TestEnvironmentException(
            "The apt sources of this machine name no Debian archive, so no Debian kernel can be fetched.");
    }

    /// <summary>The first main and the first security archive among the addresses; null without a main one.</summary>
    public static DebianMirrors? TryChoose(IReadOnlyCollection<string> addresses)
    {
        string? main = addresses.FirstOrDefault(address => IsArchive(address, "debian"));
        string? security = addresses.FirstOrDefault(address => IsArchive(address, "debian-security"));
        return main is null ? null : new DebianMirrors(main, security);
    }

    /// <summary>Addresses of enabled binary sources in the deb822 form (stanzas of "Field: value").</summary>
    public static IEnumerable<string> StanzaAddresses(string text)
    {
        foreach (Dictionary<string, string> stanza in ControlText.Stanzas(text))
        {
            bool enabled = stanza.GetValueOrDefault("Enabled", "yes") is not ("no" or "false" or "0");
            if (enabled && Words(stanza, "Types").Contains("deb") && Words(stanza, "Components").Contains("main"))
            {
                foreach (string address in Words(stanza, "URIs"))
                {
                    yield return address.TrimEnd('/');
                }
            }
        }
    }

    /// <summary>Addresses of binary sources in the one-line form: deb [options] address suite component…</summary>
    public static IEnumerable<string> OneLineAddresses(string text)
    {
        foreach (string line in text.Split('\n'))
        {
            string rest = line.Split('#')[0].Trim();
            if (!rest.StartsWith("deb ", StringComparison.Ordinal) && !rest.StartsWith("deb\t", StringComparison.Ordinal))
            {
                continue;
            }

            rest = rest[3..].Trim();
            int optionsEnd = rest.StartsWith('[') ? rest.IndexOf(']', StringComparison.Ordinal) + 1 : 0;
            string[] words = Split(rest[optionsEnd..]);
            if (words.Length > 2 && words.Skip(2).Contains("main"))
            {
                yield return words[0].TrimEnd('/');
            }
        }
    }

    /// <summary>
    /// The archive's name is the last part of the path, or the one before a snapshot's time stamp. Other
    /// vendors' archives carry "debian" elsewhere in the path.
    /// </summary>
    private static bool IsArchive(string address, string name)
    {
        string[] parts = address.Split('/');
        if (parts.Length > 1 && parts[^1].Length == 16 && parts[^1][8] == 'T' && parts[^1][15] == 'Z')
        {
            Array.Resize(ref parts, parts.Length - 1);
        }

        // The cloud images of Debian name a file with a list of mirrors: mirror+file:/etc/apt/mirrors/debian.list
        return parts.Length > 1 && (parts[^1] == name || parts[^1] == $"{name}.list");
    }

    private static string[] Words(Dictionary<string, string> stanza, string field)
    {
        return Split(stanza.GetValueOrDefault(field, string.Empty));
    }

    private static string[] Split(string text)
    {
        return text.Split([' ', '\t', '\n'], StringSplitOptions.RemoveEmptyEntries);
    }
}
