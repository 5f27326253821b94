using PvPatch.Live;

namespace RiscV.Translator;

/// <summary>A piece of guest code as host code.</summary>
/// <param name="Pc">Guest address of the first instruction.</param>
/// <param name="Words">The guest instructions it was made from.</param>
/// <param name="Code">The block in the arena.</param>
/// <param name="Points">Where in the guest its sites are, in their order.</param>
internal sealed record TranslatedBlock(ulong Pc, uint[] Words, CodeBlock Code, SitePoint[] Points);

/// <summary>Where in the guest a site is.</summary>
/// <param name="Pc">Address of the guest instruction.</param>
/// <param name="NotExecuted">That instruction and those of the block behind it.</param>
internal readonly record struct SitePoint(ulong Pc, int NotExecuted);
