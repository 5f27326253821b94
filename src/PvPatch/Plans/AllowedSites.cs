using System.Buffers;
using System.Text.Json;

namespace PvPatch.Plans;

/// <summary>
/// For each site the byte strings that may legally stand there: for checkers of kernel code, which else would have to leave sites out of
/// their sums or take any bytes there.
/// </summary>
public static class AllowedSites
{
    /// <summary>The value of the member <c>format</c>.</summary>
    public const string Format = "pvpatch-allowed";

    /// <summary>
    /// The value of the member <c>version</c>. It grows when something is taken away or changes its meaning, not when something is added.
    /// </summary>
    public const int Version = 1;

    /// <summary>Collects what may stand at each site.</summary>
    /// <param name="plans">One plan for each backend that is allowed, all of one image; at least one.</param>
    /// <returns>The sites in order of address. Addresses and originals are those of the image file: KASLR adds its slide to both.</returns>
    public static IEnumerable<AllowedSite> Of(IReadOnlyList<PatchPlan> plans)
    {
        ArgumentNullException.ThrowIfNull(plans);
        if (plans.Count == 0)
        {
            throw new ArgumentException("at least one plan is needed", nameof(plans));
        }

        return Collect(plans);
    }

    /// <summary>Writes what may stand at each site as one JSON object.</summary>
    /// <param name="plans">One plan for each backend that is allowed, all of one image; at least one.</param>
    /// <param name="json">Where to. Not flushed.</param>
    public static void Write(IReadOnlyList<PatchPlan> plans, Utf8JsonWriter json)
    {
        ArgumentNullException.ThrowIfNull(json);
        IEnumerable<AllowedSite> sites = Of(plans);
        json.WriteStartObject();
        json.WriteString("format", Format);
        json.WriteNumber("version", Version);
        json.WriteNumber("bitness", plans[0].Bitness);
        json.WriteStartArray("plans");
        foreach (PatchPlan plan in plans)
        {
            json.WriteStartObject();
            json.WriteString("backend", plan.Backend);
            json.WriteString("rules", plan.Rules);
            json.WriteEndObject();
        }

        json.WriteEndArray();
        json.WriteStartArray("sites");
        foreach (AllowedSite site in sites)
        {
            Write(site, json);
        }

        json.WriteEndArray();
        json.WriteEndObject();
    }

    /// <summary>Writes what may stand at each site as UTF-8 text.</summary>
    /// <param name="plans">One plan for each backend that is allowed, all of one image; at least one.</param>
    /// <param name="indented">Whether to break lines.</param>
    /// <returns>The text.</returns>
    public static byte[] ToUtf8(IReadOnlyList<PatchPlan> plans, bool indented = false)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(buffer, new JsonWriterOptions { Indented = indented }))
        {
            Write(plans, json);
        }

        return buffer.WrittenSpan.ToArray();
    }

    private static IEnumerable<AllowedSite> Collect(IReadOnlyList<PatchPlan> plans)
    {
        foreach (int[] indices in PlanDiff.Walk(plans))
        {
            int first = Array.FindIndex(indices, static i => i >= 0);
            SiteDecision site = plans[first][indices[first]];
            int operand = SiteFormReader.FindAddress(site.OldBytes, plans[0].Bitness);
            yield return new AllowedSite(site, AllowedSite.Collect(plans, site, 0, plans[0].Bitness), operand < 0 ? null : operand);
        }
    }

    private static void Write(AllowedSite site, Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("address", HexBytes.Format(site.Address));
        json.WriteString("section", site.Decision.Section);
        json.WriteNumber("length", site.Length);
        json.WriteString("slot", site.Decision.Label);
        if (site.AbsoluteOperand is int operand)
        {
            json.WriteNumber("originalAddressAt", operand);
        }

        WriteAllowed(site.Allowed, json);
        json.WriteEndObject();
    }

    internal static void WriteAllowed(IReadOnlyList<AllowedBytes> all, Utf8JsonWriter json)
    {
        json.WriteStartArray("allowed");
        foreach (AllowedBytes allowed in all)
        {
            json.WriteStartObject();
            json.WriteString("bytes", HexBytes.Format(allowed.Bytes.Span));
            json.WriteStartArray("of");
            foreach (string name in allowed.Of)
            {
                json.WriteStringValue(name);
            }

            json.WriteEndArray();
            json.WriteEndObject();
        }

        json.WriteEndArray();
    }
}

/// <summary>Bytes that may stand at a site, and what puts them there.</summary>
public sealed class AllowedBytes
{
    internal AllowedBytes(ReadOnlyMemory<byte> bytes, IReadOnlyList<string> of)
    {
        Bytes = bytes;
        Of = of;
    }

    /// <summary>The bytes, as many as the site is long.</summary>
    public ReadOnlyMemory<byte> Bytes { get; }

    /// <summary>The names of the backends that put them there, and <c>original</c>.</summary>
    public IReadOnlyList<string> Of { get; }
}

/// <summary>A site and all that may legally stand there.</summary>
public sealed class AllowedSite
{
    /// <summary>The name under which the original bytes are listed.</summary>
    public const string Original = "original";

    internal AllowedSite(SiteDecision decision, IReadOnlyList<AllowedBytes> allowed, int? absoluteOperand)
    {
        Decision = decision;
        Allowed = allowed;
        AbsoluteOperand = absoluteOperand;
    }

    /// <summary>What the first plan that knows the site says of it.</summary>
    public SiteDecision Decision { get; }

    /// <summary>The site's address by the image file.</summary>
    public VirtualAddress Address => Decision.Address;

    /// <summary>The length in bytes.</summary>
    public int Length => Decision.Length;

    /// <summary>Each byte string that may stand there once: the original first, then those of the plans in their order.</summary>
    public IReadOnlyList<AllowedBytes> Allowed { get; }

    /// <summary>
    /// Where the original bytes hold an absolute address of four bytes, to which a kernel moved by KASLR adds its slide before it patches
    /// the site; <see langword="null"/> where they hold none.
    /// </summary>
    public int? AbsoluteOperand { get; }

    internal static List<AllowedBytes> Collect(IReadOnlyList<PatchPlan> plans, SiteDecision site, long slide, int bitness)
    {
        byte[] original = site.OldBytes.ToArray();
        SiteFormReader.Relocate(original, bitness, slide);
        var found = new List<(byte[] Bytes, List<string> Of)> { (original, [Original]) };
        foreach (PatchPlan plan in plans)
        {
            int index = plan.IndexContaining(site.Address);
            if (index < 0 || plan[index].Address != site.Address || plan[index].Length != site.Length)
            {
                continue;
            }

            byte[] bytes = plan[index].NewBytes.ToArray();
            if (bytes.AsSpan().SequenceEqual(site.OldBytes))
            {
                bytes = original; // Left alone, so what stands there is relocated as well.
            }

            int same = found.FindIndex(f => f.Bytes.AsSpan().SequenceEqual(bytes));
            if (same < 0)
            {
                found.Add((bytes, [plan.Backend]));
            }
            else if (!found[same].Of.Contains(plan.Backend))
            {
                found[same].Of.Add(plan.Backend);
            }
        }

        return [.. found.Select(static f => new AllowedBytes(f.Bytes, f.Of))];
    }
}
