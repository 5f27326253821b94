using System.Text;
using PvPatch.Linux.Eras;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Layouts;

/// <summary>
/// The orders of struct paravirt_patch_template from 2.6.24 on, made of a list of slots with the releases and configurations that have each
/// (Layouts/orders.txt): for each configuration of a release the slots that it has, one order for as many releases as have the same.
/// </summary>
internal static class SlotOrders
{
    // Options that shift slots, by architecture, with the words of names where an option is not as it mostly is.
    private static readonly (string Option, bool Usual, string IfOn, string IfOff)[] s_options64 =
        [("xxl", true, "", "-noxxl"), ("5level", false, "-5level", "-4level"), ("ioperm", true, "", "-noioperm"),
            ("queued", true, "", "-ticket"), ("spinlocks", true, "", "-nospinlocks")];

    private static readonly (string Option, bool Usual, string IfOn, string IfOff)[] s_options32 =
        [("pae", false, "-pae", "-nopae"), ("highpte", false, "-highpte", ""), ("apic", true, "", "-noapic"),
            ("queued", true, "", "-ticket"), ("spinlocks", true, "", "-nospinlocks")];

    // pv_init_ops and so on before 4.20, pv_ops from then on (arch/x86/kernel/paravirt.c).
    private static readonly KernelRelease s_oneTable = new(4, 20, 0);

    // 32-bit from 2.6.24 on, 64-bit from 2.6.25 on.
    private static readonly KernelRelease s_first64 = new(2, 6, 25);

    private readonly record struct Line(string Slot, HashSet<KernelRelease> Releases, string[] Conditions);

    /// <summary>Reads the list and makes the orders, oldest first.</summary>
    /// <exception cref="FormatException">The text is no such list.</exception>
    public static IReadOnlyList<KnownOrder> Read(string text)
    {
        List<KernelRelease> releases = [];
        List<Line> lines = [];
        HashSet<KernelRelease> all = [];
        foreach (string raw in text.Split('\n'))
        {
            string[] words = raw.Split('#')[0].Split(' ', StringSplitOptions.RemoveEmptyEntries);
            switch (words)
            {
                case []:
                    break;
                case ["releases", .. var names]:
                    releases.AddRange(names.Select(ReleaseOf));
                    break;
                case ["order", var range]:
                    all = Range(range, releases);
                    break;
                default:
                    lines.Add(new Line(words[0], words.Length < 2 || words[1] == "all" ? all : Range(words[1], releases),
                        words.Length < 3 ? [] : words[2].Split('|')));
                    break;
            }
        }

        return Orders(releases, lines);
    }

    private static List<KnownOrder> Orders(List<KernelRelease> releases, List<Line> lines)
    {
        var orders = new List<(string Configuration, KernelRelease First, KernelRelease Last, List<string> Slots)>();
        var latest = new Dictionary<string, int>(StringComparer.Ordinal);
        for (int i = 0; i < releases.Count; i++)
        {
            List<Line> present = lines.FindAll(l => l.Releases.Contains(releases[i]));
            foreach ((string configuration, HashSet<string> has) in Configurations(releases[i], present))
            {
                List<string> slots =
                    [.. present.Where(l => l.Conditions.Length == 0 || l.Conditions.Any(has.Contains)).Select(static l => l.Slot)];
                if (latest.TryGetValue(configuration, out int before) && orders[before].Last == releases[i - 1]
                    && orders[before].Slots.SequenceEqual(slots))
                {
                    orders[before] = orders[before] with { Last = releases[i] };
                }
                else
                {
                    latest[configuration] = orders.Count;
                    orders.Add((configuration, releases[i], releases[i], slots));
                }
            }
        }

        return [.. orders.Select(static o => new KnownOrder(o.Configuration, o.First, o.Last,
            o.First < s_oneTable ? SlotPlacement.TableByTable : SlotPlacement.OneTable, name => Layout(name, o.Configuration, o.Slots)))];
    }

    /// <summary>The configurations that differ in a release, each with what it has of what slots depend on.</summary>
    private static IEnumerable<(string Name, HashSet<string> Has)> Configurations(KernelRelease release, List<Line> present)
    {
        HashSet<string> asked = [.. present.SelectMany(static l => l.Conditions).Select(static c => c == "ticket" ? "queued" : c)];
        foreach (bool is64 in (bool[])[true, false])
        {
            if (is64 && release < s_first64)
            {
                continue;
            }

            (string Option, bool Usual, string IfOn, string IfOff)[] options =
                [.. (is64 ? s_options64 : s_options32).Where(o => asked.Contains(o.Option))];
            HashSet<string> seen = [];
            for (int bits = 0; bits < 1 << options.Length; bits++)
            {
                HashSet<string> has = is64 ? ["x64", "apic"] : ["i386"];
                var name = new StringBuilder(is64 ? "x86-64" : "i386");
                for (int i = 0; i < options.Length; i++)
                {
                    // Without PARAVIRT_XXL there is nothing that page tables or ports would shift.
                    bool counts = options[i].Option is not ("5level" or "ioperm") || !asked.Contains("xxl") || has.Contains("xxl");
                    bool isOn = counts && (bits >> i & 1) == (options[i].Usual ? 0 : 1);
                    name.Append(counts ? isOn ? options[i].IfOn : options[i].IfOff : "");
                    _ = isOn && has.Add(options[i].Option);
                }

                _ = !has.Contains("queued") && has.Add("ticket");
                if (seen.Add(name.ToString()))
                {
                    yield return (name.ToString(), has);
                }
            }
        }
    }

    private static OpsLayout Layout(string name, string configuration, List<string> slots)
    {
        string text = $"bits {(configuration.StartsWith("i386", StringComparison.Ordinal) ? 32 : 64)}\n{string.Join('\n', slots)}\n";
        return KernelLayoutText.TryRead(Encoding.ASCII.GetBytes(text), name, out OpsLayout? layout, out PatchDiagnostic? error)
            ? layout : throw new PatchException(error);
    }

    private static HashSet<KernelRelease> Range(string text, List<KernelRelease> releases)
    {
        HashSet<KernelRelease> found = [];
        foreach (string part in text.Split(','))
        {
            string[] ends = part.Split('-');
            KernelRelease first = ReleaseOf(ends[0]);
            KernelRelease last = ReleaseOf(ends[^1]);
            found.UnionWith(releases.Where(r => r >= first && r <= last));
        }

        return found;
    }

    private static KernelRelease ReleaseOf(string text) =>
        KernelRelease.TryParse(text, out KernelRelease release) ? release : throw new FormatException($"{text} is no release");
}
