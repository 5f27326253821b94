using PvPatch;
using PvPatch.Live;

namespace RiscV.Translator;

/// <summary>A piece of guest code as host code.</summary>
/// <param name="Code">The block in the arena.</param>
/// <param name="Points">The sites in which it can stop or report, by their ends.</param>
internal sealed record TranslatedBlock(CodeBlock Code, IReadOnlyList<(VirtualAddress End, SitePoint Point)> Points);

/// <summary>Where in the guest a site is.</summary>
/// <param name="Pc">Address of the guest instruction.</param>
/// <param name="NotExecuted">That instruction and those of the block behind it.</param>
internal readonly record struct SitePoint(ulong Pc, int NotExecuted);
