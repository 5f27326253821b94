namespace PvPatch.Plans;

/// <summary>Bytes that may stand at a site, and of what they are.</summary>
/// <param name="Bytes">The bytes, as many as the site is long.</param>
/// <param name="Of">The names of the backends that put them there, and <c>original</c>.</param>
public sealed record AllowedBytes(ReadOnlyMemory<byte> Bytes, IReadOnlyList<string> Of);

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
        Plans.AbsoluteOperand.Relocate(original, bitness, slide);
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
