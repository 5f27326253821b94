using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace PvPatch.Linux.Symbols;

/// <summary>A place written as <c>symbol</c>, <c>symbol+0x12</c> or, as in the kernel's messages, <c>symbol+0x12/0x40</c>.</summary>
internal readonly record struct SymbolPlace(string Name, ulong Offset)
{
    public static bool TryParse(string text, out SymbolPlace place, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ReadOnlySpan<char> rest = text.AsSpan().Trim();
        int plus = rest.IndexOf('+');
        ReadOnlySpan<char> name = plus < 0 ? rest : rest[..plus];
        ulong offset = 0;
        bool good = !name.IsEmpty && !name.ContainsAny(" \t\r\n");
        if (good && plus >= 0)
        {
            ReadOnlySpan<char> number = rest[(plus + 1)..];
            int slash = number.IndexOf('/');
            good = TryParseNumber(slash < 0 ? number : number[..slash], out offset)
                && (slash < 0 || TryParseNumber(number[(slash + 1)..], out _));
        }

        place = good ? new SymbolPlace(name.ToString(), offset) : default;
        error = good ? null : PatchDiagnostic.Error(KernelDiagnosticCodes.SymbolPlaceBad, "That is not a place in the kernel") with
        {
            Found = text.Length <= 80 ? text : text[..80] + "...",
            Expected = "symbol, symbol+0x12 or symbol+18",
        };
        return good;
    }

    /// <summary>What is wrong where no symbol has this name.</summary>
    public PatchDiagnostic Unknown(int symbols) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.SymbolUnknown, $"The kernel has no symbol {Name}") with
        {
            Found = $"{symbols} symbols of other names",
            Help =
            "Static functions may have been inlined; some kernels list functions only, and names of their clones end in .isra.0, "
            + ".constprop.0 or .cold",
        };

    private static bool TryParseNumber(ReadOnlySpan<char> text, out ulong value) =>
        text.StartsWith("0x", StringComparison.OrdinalIgnoreCase)
        ? ulong.TryParse(text[2..], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out value)
        : ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out value);
}
