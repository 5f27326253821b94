using System.Globalization;
using PvPatch.Paravirt;
using PvPatch.Tests.Support;

namespace PvPatch.Tests.Golden;

/// <summary>
/// Which kernels the rules of the golden tables stand for, and which body of <c>bodies.txt</c> was in force there. Kernel versions
/// are made comparable numbers; <c>4.18rh</c> is a little more than 4.18.
/// </summary>
internal static class KernelEras
{
    private static readonly Dictionary<string, (string First, string Last)> s_rules = new()
    {
        ["linux-2.6.20"] = ("2.6.20", "2.6.20"),
        ["linux-2.6.21"] = ("2.6.21", "2.6.21"),
        ["linux-2.6.22"] = ("2.6.22", "2.6.22"),
        ["linux-2.6.23"] = ("2.6.23", "2.6.23"),
        ["linux-2.6.24"] = ("2.6.24", "2.6.24"),
        ["linux-2.6.25"] = ("2.6.25", "2.6.26"),
        ["linux-2.6.27"] = ("2.6.27", "2.6.29"),
        ["linux-2.6.30"] = ("2.6.30", "4.1"),
        ["linux-4.2"] = ("4.2", "4.18"),
        ["linux-4.18rh"] = ("4.18rh", "4.18rh"),
        ["linux-4.20"] = ("4.20", "5.9"),
        ["linux-5.10"] = ("5.10", "5.12"),
        ["linux-6.1"] = ("5.13", "6.7"),
    };

    /// <summary>The body a backend had for a slot under some rules; nothing where it had none.</summary>
    public static GoldenRow? FindBody(GoldenTable bodies, string backend, int bits, string slot, string rules)
    {
        (string first, string last) = s_rules[rules];
        return bodies.Rows.FirstOrDefault(row =>
        {
            if (row["backend"] != backend || row.Int32("bits") != bits || row["slot"] != slot || row["eras"] == "-")
            {
                return false;
            }

            string[] eras = row["eras"].Split("..");
            return Compare(eras[0], last) <= 0 && Compare(first, eras[1]) <= 0;
        });
    }

    /// <summary>The clobber words of the kernels some rules stand for: RSI and RDI changed places in 2.6.30.</summary>
    public static KernelClobberEncoding Clobbers(string rules, int bits)
    {
        bool since2630 = !s_rules.TryGetValue(rules, out (string First, string Last) range) || Compare("2.6.30", range.First) <= 0;
        return bits == 64
            ? since2630 ? KernelClobberEncoding.X64 : KernelClobberEncoding.X64Before2630
            : since2630 ? KernelClobberEncoding.I386Since2630 : KernelClobberEncoding.I386;
    }

    private static int Compare(string left, string right) => Key(left).CompareTo(Key(right));

    private static long Key(string version)
    {
        if (version == "now")
        {
            return long.MaxValue;
        }

        bool backports = version.EndsWith("rh", StringComparison.Ordinal);
        string[] parts = (backports ? version[..^2] : version).Split('.');
        long key = 0;
        for (int i = 0; i < 3; i++)
        {
            long part = i >= parts.Length ? 0 : parts[i] == "x" ? 999 : long.Parse(parts[i], CultureInfo.InvariantCulture);
            key = key * 1000 + part;
        }

        return key * 10 + (backports ? 1 : 0);
    }
}
