using PvPatch.Images;
using PvPatch.Linux.Alternatives;
using PvPatch.Linux.Elf;
using PvPatch.Sites;

namespace PvPatch.Linux.Kernel;

/// <summary>Code with sites that one kernel patches: its own, or that of a module.</summary>
/// <param name="Elf">The file the replacements of alternatives are in.</param>
/// <param name="Code">The code at run addresses.</param>
/// <param name="Sites">Its sites.</param>
/// <param name="Alternatives">Its alternatives, where it has any.</param>
internal readonly record struct PlannedCode(ElfImage Elf, CodeImage Code, SiteTable Sites, AltInstrTable? Alternatives);
