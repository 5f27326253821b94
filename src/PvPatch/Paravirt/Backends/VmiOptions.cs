namespace PvPatch.Paravirt;

/// <summary>What a VMI ROM answers.</summary>
public sealed record VmiOptions
{
    /// <summary>
    /// The ROM's answer for each of the six calls whose sites are patched. By default the ROM has none of them.
    /// </summary>
    public Func<VmiCall, VmiRelocation> GetRelocation { get; init; } = static _ => default;

    /// <summary>
    /// The ROM's answers for other slots that a guest fills straight from the ROM, by the standard slot name (<c>cpu.cpuid</c>). Their
    /// sites are not patched by VMI's own patch function; the functions are for rules that do better.
    /// </summary>
    public IReadOnlyDictionary<string, VmiRelocation> Slots { get; init; } = new Dictionary<string, VmiRelocation>();
}
