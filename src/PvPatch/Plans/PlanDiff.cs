using System.Globalization;
using System.Text.Json;

namespace PvPatch.Plans;

/// <summary>Two plans compared site by site: two backends of one kernel, two eras' rules, or two builds.</summary>
public sealed class PlanDiff
{
    /// <summary>The value of the member <c>format</c> of the JSON.</summary>
    internal const string JsonFormat = "pvpatch-diff";

    /// <summary>
    /// The value of the member <c>version</c> of the JSON. It grows when something is taken away or changes its meaning, not when something
    /// is added.
    /// </summary>
    internal const int JsonVersion = 1;

    private static readonly PlanDifferenceKinds[] s_kinds = [
        .. Enum.GetValues<PlanDifferenceKinds>().Where(static k => k != PlanDifferenceKinds.None)];

    private PlanDiff(PatchPlan first, PatchPlan second, IReadOnlyList<PlanDifference> differences, int compared)
    {
        First = first;
        Second = second;
        Differences = differences;
        Common = compared;
    }

    /// <summary>The first plan.</summary>
    public PatchPlan First { get; }

    /// <summary>The second plan.</summary>
    public PatchPlan Second { get; }

    /// <summary>The sites that differ, in order of address.</summary>
    public IReadOnlyList<PlanDifference> Differences { get; }

    /// <summary>How many sites both plans have.</summary>
    public int Common { get; }

    /// <summary>Whether the plans are of code of the same bitness, with the same sites, and say the same of each.</summary>
    public bool AreEqual => Differences.Count == 0 && First.Bitness == Second.Bitness;

    /// <summary>Compares two plans.</summary>
    /// <param name="first">One plan.</param>
    /// <param name="second">The other.</param>
    /// <returns>
    /// Where they differ. Sites are the same where address and length are; remarks and names of targets are not compared.
    /// </returns>
    public static PlanDiff Compare(PatchPlan first, PatchPlan second)
    {
        ArgumentNullException.ThrowIfNull(first);
        ArgumentNullException.ThrowIfNull(second);
        var differences = new List<PlanDifference>();
        int common = 0;
        foreach (int[] at in Walk([first, second]))
        {
            SiteDecision? a = at[0] < 0 ? null : first[at[0]];
            SiteDecision? b = at[1] < 0 ? null : second[at[1]];
            PlanDifferenceKinds kinds = b is null ? PlanDifferenceKinds.OnlyInFirst : a is null
                ? PlanDifferenceKinds.OnlyInSecond : Compare(a.Value, b.Value);
            common += a is not null && b is not null ? 1 : 0;
            if (kinds != PlanDifferenceKinds.None)
            {
                differences.Add(new PlanDifference(kinds, a, b));
            }
        }

        return new PlanDiff(first, second, differences, common);
    }

    /// <summary>How many sites differ in something.</summary>
    /// <param name="kind">One kind or several, of which any counts.</param>
    /// <returns>The number.</returns>
    public int Count(PlanDifferenceKinds kind) => Differences.Count(d => (d.Kinds & kind) != 0);

    /// <summary>Writes the differences as one JSON object of the format <c>pvpatch-diff</c>.</summary>
    /// <param name="json">The writer. It is not flushed.</param>
    public void WriteTo(Utf8JsonWriter json)
    {
        ArgumentNullException.ThrowIfNull(json);
        json.WriteStartObject();
        json.WriteString("format", JsonFormat);
        json.WriteNumber("version", JsonVersion);
        WritePlan("first", First, json);
        WritePlan("second", Second, json);
        json.WriteNumber("common", Common);
        json.WriteStartObject("counts");
        foreach (PlanDifferenceKinds kind in s_kinds)
        {
            json.WriteNumber(PlanJson.Name(kind), Count(kind));
        }

        json.WriteEndObject();
        json.WriteStartArray("differences");
        foreach (PlanDifference difference in Differences)
        {
            Write(difference, json);
        }

        json.WriteEndArray();
        json.WriteEndObject();
    }

    /// <summary>
    /// Walks several plans side by side: each site that any of them has, in order of address, as the indices of it in the plans (-1 where a
    /// plan lacks it). The array is used again for the next.
    /// </summary>
    internal static IEnumerable<int[]> Walk(IReadOnlyList<PatchPlan> plans)
    {
        int[] next = new int[plans.Count];
        int[] here = new int[plans.Count];
        while (true)
        {
            (ulong Address, int Length) lowest = (ulong.MaxValue, int.MaxValue);
            for (int i = 0; i < next.Length; i++)
            {
                if (next[i] < plans[i].Count)
                {
                    (ulong Address, int Length) key = Key(plans[i], next[i]);
                    lowest = key.CompareTo(lowest) < 0 ? key : lowest;
                }
            }

            if (lowest.Length == int.MaxValue)
            {
                yield break;
            }

            for (int i = 0; i < next.Length; i++)
            {
                bool has = next[i] < plans[i].Count && Key(plans[i], next[i]) == lowest;
                here[i] = has ? next[i]++ : -1;
            }

            yield return here;
        }
    }

    private static (ulong Address, int Length) Key(PatchPlan plan, int index) => (plan[index].Address.Value, plan[index].Length);

    private static PlanDifferenceKinds Compare(SiteDecision a, SiteDecision b) =>
        (a.OldBytes.SequenceEqual(b.OldBytes) ? 0 : PlanDifferenceKinds.OldBytes)
        | (a.NewBytes.SequenceEqual(b.NewBytes) ? 0 : PlanDifferenceKinds.NewBytes)
        | (a.Action == b.Action && a.Reason == b.Reason ? 0 : PlanDifferenceKinds.Action)
        | (a.Label == b.Label ? 0 : PlanDifferenceKinds.Label)
        | (a.Target == b.Target ? 0 : PlanDifferenceKinds.Target);

    private static void WritePlan(string name, PatchPlan plan, Utf8JsonWriter json)
    {
        json.WriteStartObject(name);
        json.WriteString("backend", plan.Backend);
        json.WriteString("rules", plan.Rules);
        json.WriteNumber("bitness", plan.Bitness);
        json.WriteNumber("sites", plan.Count);
        json.WriteEndObject();
    }

    private static void Write(PlanDifference difference, Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("address", HexBytes.Format(difference.Address));
        json.WriteNumber("length", difference.Length);
        json.WriteStartArray("kinds");
        foreach (PlanDifferenceKinds kind in s_kinds.Where(k => (difference.Kinds & k) != 0))
        {
            json.WriteStringValue(PlanJson.Name(kind));
        }

        json.WriteEndArray();
        WriteSite("first", difference.First, json);
        WriteSite("second", difference.Second, json);
        json.WriteEndObject();
    }

    private static void WriteSite(string name, SiteDecision? site, Utf8JsonWriter json)
    {
        if (site is not SiteDecision there)
        {
            return;
        }

        json.WriteStartObject(name);
        json.WriteString("section", there.Section);
        json.WriteString("slot", there.Label);
        json.WriteString("action", PlanJson.Name(there.Action));
        json.WriteString("reason", PlanJson.Name(there.Reason));
        json.WriteString("old", HexBytes.Format(there.OldBytes));
        json.WriteString("new", HexBytes.Format(there.NewBytes));
        if (there.Target is VirtualAddress target)
        {
            json.WriteString("target", HexBytes.Format(target));
        }

        json.WriteEndObject();
    }
}

/// <summary>In what a site differs between two plans.</summary>
[Flags]
public enum PlanDifferenceKinds
{
    /// <summary>In nothing.</summary>
    None = 0,

    /// <summary>Only the first plan has a site of this address and length.</summary>
    OnlyInFirst = 1,

    /// <summary>Only the second plan has one.</summary>
    OnlyInSecond = 2,

    /// <summary>The original bytes differ: the plans are of different images.</summary>
    OldBytes = 4,

    /// <summary>The new bytes differ.</summary>
    NewBytes = 8,

    /// <summary>The plans do different things, or leave the site alone for different reasons.</summary>
    Action = 16,

    /// <summary>The site stands for another slot.</summary>
    Label = 32,

    /// <summary>A call or jump goes elsewhere.</summary>
    Target = 64,
}

/// <summary>A site that differs between two plans.</summary>
public sealed class PlanDifference
{
    internal PlanDifference(PlanDifferenceKinds kinds, SiteDecision? first, SiteDecision? second)
    {
        Kinds = kinds;
        First = first;
        Second = second;
    }

    /// <summary>Its run address.</summary>
    public VirtualAddress Address => Any.Address;

    /// <summary>Its length in bytes.</summary>
    public int Length => Any.Length;

    /// <summary>What differs.</summary>
    public PlanDifferenceKinds Kinds { get; }

    /// <summary>The first plan's decision, where it has the site.</summary>
    public SiteDecision? First { get; }

    /// <summary>The second plan's decision, where it has the site.</summary>
    public SiteDecision? Second { get; }

    private SiteDecision Any => (First ?? Second)!.Value;

    /// <summary>One line: address, slot, and of both plans what is done and the new bytes.</summary>
    /// <returns>One line of text.</returns>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture, $"{Address} {Any.Label}: {Describe(First)} | {Describe(Second)} ({Kinds})");

    private static string Describe(SiteDecision? site) => site is SiteDecision there
        ? $"{there.Action}{(there.Reason == PatchReason.None ? "" : $" ({there.Reason})")} {HexBytes.Format(there.NewBytes)}"
        : "no site";
}
