using PvPatch.Live;

namespace RiscV.Translator;

/// <summary>A piece of guest code as host code.</summary>
/// <param name="Words">The guest instructions it was made from.</param>
/// <param name="Code">The block in the arena.</param>
/// <param name="Entries">Guest addresses where its blocks begin, and their host addresses: each may be entered.</param>
/// <param name="Points">Where in the guest its sites are, in their order.</param>
internal sealed record TranslatedRegion(
    (ulong Pc, uint Word)[] Words, CodeBlock Code, (ulong Pc, ulong Address)[] Entries, SitePoint[] Points);

/// <summary>Where in the guest a site is.</summary>
/// <param name="Pc">Address of the guest instruction.</param>
/// <param name="NotExecuted">That instruction and those of the block behind it.</param>
internal readonly record struct SitePoint(ulong Pc, int NotExecuted);
