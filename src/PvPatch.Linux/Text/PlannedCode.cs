using PvPatch.Images;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tables;
using PvPatch.Plans;

namespace PvPatch.Linux.Text;

/// <summary>Code with sites that one kernel patches: its own, or that of a module.</summary>
/// <param name="Elf">The file the replacements of alternatives are in.</param>
/// <param name="Code">The code at run addresses.</param>
/// <param name="Sites">Its sites.</param>
/// <param name="Alternatives">Its alternatives, where it has any.</param>
internal readonly record struct PlannedCode(ElfImage Elf, CodeImage Code, SiteTable Sites, AltInstrTable? Alternatives);
