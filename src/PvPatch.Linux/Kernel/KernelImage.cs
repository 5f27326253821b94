using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;
using PvPatch.Linux.Alternatives;
using PvPatch.Linux.Boot;
using PvPatch.Linux.Elf;
using PvPatch.Ops;
using PvPatch.Sites;
using PvPatch.Sites.Formats;

namespace PvPatch.Linux.Kernel;

/// <summary>
/// A kernel's ELF file with all that is needed to plan its paravirt sites: sites, layout, ops table, alternatives, era. Nothing is
/// copied: <see cref="Code"/> views the file's own bytes, so a plan applied to it changes the file in memory.
/// </summary>
public sealed class KernelImage
{
    private KernelImage(ElfImage elf, CodeImage code, KernelEra era, OpsLayout layout, SiteTable sites, ParaInstruction[] records)
    {
        Elf = elf;
        Code = code;
        Era = era;
        Layout = layout;
        Sites = sites;
        Records = records;
    }

    /// <summary>The ELF file.</summary>
    public ElfImage Elf { get; }

    /// <summary>Its sections of code, at their link addresses.</summary>
    public CodeImage Code { get; }

    /// <summary>The era it is of.</summary>
    public KernelEra Era { get; }

    /// <summary>The order of its slots.</summary>
    public OpsLayout Layout { get; }

    /// <summary>Its sites, by address.</summary>
    public SiteTable Sites { get; }

    /// <summary>The records of its site table, as stored.</summary>
    public IReadOnlyList<ParaInstruction> Records { get; }

    /// <summary>Run address of the ops table (<c>pv_ops</c>).</summary>
    public VirtualAddress OpsTable { get; private init; }

    /// <summary>The functions its ops table holds on disk: those of a native boot.</summary>
    public Backend Native { get; private init; } = null!;

    /// <summary>Its alternatives; <see langword="null"/> where the era lays none over sites.</summary>
    public AltInstrTable? Alternatives { get; private init; }

    /// <summary>The names of the backends that can be planned for it.</summary>
    public IReadOnlyList<string> BackendNames => [Native.Name];

    /// <summary>Reads and unpacks a kernel file and opens the image.</summary>
    /// <param name="path">A vmlinux or vmlinuz.</param>
    /// <param name="options">Limits; the usual ones where <see langword="null"/>.</param>
    /// <param name="image">The image.</param>
    /// <param name="error">What is wrong: codes PV60xx for the file, PV61xx and PV1xxx for what is in it.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>Whether the image can be planned.</returns>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static bool TryLoad(
        string path,
        KernelLoadOptions? options,
        [NotNullWhen(true)] out KernelImage? image,
        [NotNullWhen(false)] out PatchDiagnostic? error,
        CancellationToken cancellationToken = default)
    {
        image = null;
        if (!KernelFile.TryLoad(path, options, out LoadedKernelFile? file, out error, cancellationToken))
        {
            return false;
        }

        if (!ElfImage.TryRead(file.Image, out ElfImage? elf, out error) || !TryOpen(elf, out image, out error))
        {
            error = error with { Source = path };
            return false;
        }

        return true;
    }

    /// <summary>Opens a kernel's ELF file.</summary>
    /// <param name="elf">The file.</param>
    /// <param name="image">The image.</param>
    /// <param name="error">What is wrong: no site table (PV6101), an unknown era (PV6102) or layout (PV6103), no ops table (PV6104), a bad site table (PV1xxx).</param>
    /// <returns>Whether the image can be planned.</returns>
    public static bool TryOpen(ElfImage elf, [NotNullWhen(true)] out KernelImage? image, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentNullException.ThrowIfNull(elf);
        image = null;
        if (!KernelEraDetector.TryFindSiteTable(elf, out ElfSection? table, out error)
            || !KernelLayoutReader.TryRead(elf, out OpsLayout? layout, out error)
            || !KernelEraDetector.TryDetect(elf, layout, out KernelEra? era, out error)
            || !era.SiteTable64.TryRead(elf.GetBytes(table).Span, out ParaInstruction[]? records, out error, table.FileOffset))
        {
            return false;
        }

        CodeImage code = CodeOf(elf);
        if (!TryMakeSites(records, era, code, table.FileOffset, out SiteTable? sites, out error)
            || !PvOpsLocator.TryFind(code, records, out VirtualAddress? opsTable, out error)
            || !new NativeTable(elf, SymbolNames(elf)).TryRead(layout, opsTable.Value, out Backend? native, out error))
        {
            return false;
        }

        AltInstrTable? alternatives = null;
        if (era.Alternatives is not null && !AltInstrTable.TryRead(elf, out alternatives, out error))
        {
            return false;
        }

        image = new KernelImage(elf, code, era, layout, sites, records) { OpsTable = opsTable.Value, Native = native, Alternatives = alternatives };
        return true;
    }

    /// <summary>An ELF file's sections of code at their link addresses, whether or not its sites can be found: what a stored plan is applied to or reverted in.</summary>
    /// <param name="elf">The file. The image views its bytes.</param>
    /// <returns>The code; none for a relocatable file, whose sections have no addresses yet.</returns>
    public static CodeImage CodeOf(ElfImage elf)
    {
        ArgumentNullException.ThrowIfNull(elf);
        IEnumerable<ElfSection> sections = elf.Type == ElfFileType.Relocatable
            ? []
            : elf.Sections.Where(static s => s.IsAllocated && s.IsExecutable && s.HasFileContent && s.Size > 0);
        return new CodeImage(elf.Bitness, sections.Select(s => new CodeSegment(s.Name, s.Address, elf.GetBytes(s))));
    }

    /// <summary>The name of the function at an address, where the file has symbols.</summary>
    /// <param name="elf">The file.</param>
    /// <returns>A look-up that gives <see langword="null"/> for what it does not know.</returns>
    internal static Func<VirtualAddress, string?> SymbolNames(ElfImage elf)
    {
        if (!elf.TryReadSymbols(out ElfSymbolTable? symbols, out _))
        {
            return static _ => null; // Distribution images are stripped; addresses must do.
        }

        var indices = new Dictionary<VirtualAddress, int>();
        for (int i = 0; i < symbols.Count; i++)
        {
            if (symbols[i].Type == ElfSymbolType.Function)
            {
                indices.TryAdd(symbols[i].Value, i);
            }
        }

        return address => indices.TryGetValue(address, out int index) ? symbols.GetName(index) : null;
    }

    private static bool TryMakeSites(
        ParaInstruction[] records, KernelEra era, CodeImage code, long fileOffset, [NotNullWhen(true)] out SiteTable? sites, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        var list = new PatchSite[records.Length];
        sites = null;
        for (int i = 0; i < records.Length; i++)
        {
            ParaInstruction record = records[i];
            list[i] = record.ToSite(era.SiteTable64.Clobbers);
            if (code.Find(record.Address, record.Length) is null)
            {
                error = PatchDiagnostic.Error(DiagnosticCodes.SiteOutsideImage, "a record of the site table names an address outside every section of code") with
                {
                    SiteIndex = i,
                    Address = record.Address,
                    FileOffset = fileOffset + i * (long)era.SiteTable64.Stride,
                    Found = $"{record.Address}+{record.Length}",
                    Expected = code.ToString(),
                    Help = "The table is damaged, or its records have another size than this era's.",
                };
                return false;
            }
        }

        bool made = SiteTable.TryCreate(list, out sites, out IReadOnlyList<PatchDiagnostic> diagnostics);
        error = made ? null : diagnostics[0] with { FileOffset = fileOffset + (diagnostics[0].SiteIndex ?? 0) * (long)era.SiteTable64.Stride };
        return made;
    }
}
