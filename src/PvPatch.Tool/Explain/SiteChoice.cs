using System.Globalization;
using PvPatch.Linux;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tool.Explain;

/// <summary>Finds the site or slot that a text names.</summary>
internal static class SiteChoice
{
    private const string IndexPrefix = "site:";

    /// <summary>The slot a text names, with or without its table; <see langword="null"/> where it names none.</summary>
    /// <exception cref="ToolFailure">It names more than one (PV7003).</exception>
    public static OpSlot? FindSlot(KernelImage image, string text)
    {
        OpSlot[] found = [.. image.Layout.Slots.Where(s => s.Name == text)];
        if (found.Length == 0)
        {
            found = [.. image.Layout.Slots.Where(s => s.ShortName == text)];
        }

        return found.Length <= 1 ? found.FirstOrDefault() : throw new ToolFailure(
            PatchDiagnostic.Error(ToolDiagnosticCodes.NoSlotMatches, $"more than one slot is called \"{text}\"") with
            {
                Expected = string.Join(" or ", found.Select(static s => s.Name)),
            });
    }

    /// <summary>The site's index in order of address.</summary>
    /// <exception cref="ToolFailure">The text is no address, or no site has a byte there (PV7002).</exception>
    public static int Find(KernelImage image, KernelNames names, string text)
    {
        if (text.StartsWith(IndexPrefix, StringComparison.OrdinalIgnoreCase))
        {
            bool isNumber = int.TryParse(text.AsSpan(IndexPrefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out int index);
            return isNumber && index < image.Sites.Count
                ? index
                : throw Unknown($"there is no site \"{text}\"", $"site:0 to site:{image.Sites.Count - 1}",
                    "pvpatch sites lists the sites; site:0 is the first.");
        }

        if (!VirtualAddress.TryParse(text, out VirtualAddress address) && !names.TryFind(text, out address, out PatchDiagnostic? error))
        {
            throw error?.Code == KernelDiagnosticCodes.SymbolUnknown ? new ToolFailure(error) : Unknown(
                $"\"{text}\" is no address",
                "hexadecimal digits, site:N, a slot, or function+0x12 where the kernel has symbols",
                "pvpatch sites lists the addresses of all sites.");
        }

        int found = image.Sites.IndexContaining(address);
        return found >= 0 ? found : throw NotInSite(image, names, address);
    }

    private static ToolFailure NotInSite(KernelImage image, KernelNames names, VirtualAddress address)
    {
        // The last site before the address, and the one behind it.
        ReadOnlySpan<PatchSite> sites = image.Sites.Sites;
        int behind = 0;
        while (behind < sites.Length && sites[behind].Address < address)
        {
            behind++;
        }

        var near = new List<string>();
        for (int i = Math.Max(0, behind - 2); i < Math.Min(sites.Length, behind + 2); i++)
        {
            near.Add($"{sites[i].Address} ({image.Layout[sites[i].Slot].Name})");
        }

        string where = image.Code.Find(address, 1) is { } section
            ? $"{names.PlaceOf(address) ?? "an address"} in {section.Name}" : "an address outside the kernel's code";
        return new ToolFailure(
            PatchDiagnostic.Error(ToolDiagnosticCodes.NoSiteAtAddress, "no paravirt site has a byte at this address") with
            {
                Address = address,
                Found = where,
                Help = near.Count == 0 ? "The kernel has no sites." : $"The nearest sites: {string.Join(", ", near)}.",
            });
    }

    private static ToolFailure Unknown(string message, string expected, string help) =>
        new(PatchDiagnostic.Error(ToolDiagnosticCodes.NoSiteAtAddress, message) with { Expected = expected, Help = help });
}
