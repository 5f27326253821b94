using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Layouts;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tables;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;

namespace PvPatch.Linux;

/// <summary>
/// A kernel's ELF file with all that is needed to plan its paravirt sites: sites, layout, ops table, alternatives, era. Nothing is
/// copied: <see cref="Code"/> views the file's own bytes, so a plan applied to it changes the file in memory.
/// </summary>
public sealed class KernelImage
{
    private readonly KernelSites _sites;

    private KernelImage(ElfImage elf, CodeImage code, KernelEra era, OpsLayout layout, KernelSites sites, SlotTargets targets)
    {
        Elf = elf;
        Code = code;
        Era = era;
        Layout = layout;
        _sites = sites;
        Targets = targets;
        Native = KernelBackends.CreateNative(era, layout, elf.Bitness, targets, new NativeOptions());
    }

    /// <summary>32 or 64.</summary>
    public int Bitness => Elf.Bitness;

    /// <summary>What is odd about the file though it can be planned.</summary>
    public IReadOnlyList<PatchDiagnostic> Warnings => Elf.Warnings;

    internal ElfImage Elf { get; }

    /// <summary>Its sections of code, at their link addresses.</summary>
    public CodeImage Code { get; }

    /// <summary>The era it is of.</summary>
    public KernelEra Era { get; }

    /// <summary>The order of its slots. Where the lock slots are a table of their own (after 6.18), they are the last.</summary>
    public OpsLayout Layout { get; }

    /// <summary>Its sites, by address.</summary>
    public SiteTable Sites => _sites.Sites;

    /// <summary>The records of its <c>.parainstructions</c>, as stored; none where its sites are alternatives.</summary>
    public IReadOnlyList<ParaInstruction> Records => _sites.Records;

    /// <summary>Run address of each slot's word (<c>pv_ops</c>, <c>pv_ops_lock</c>), by slot index; 0 where no site goes through it and no symbol tells.</summary>
    public IReadOnlyList<VirtualAddress> SlotWords => _sites.SlotWords;

    /// <summary>Run address of the ops table (<c>pv_ops</c>); of the first one where there are several, 0 where no site goes through it.</summary>
    public VirtualAddress OpsTable => SlotWords[0];

    /// <summary>The functions its ops table holds on disk, and all others by name.</summary>
    public SlotTargets Targets { get; }

    /// <summary>The functions its ops table holds on disk: those of a native boot.</summary>
    public Backend Native { get; }

    internal AltInstrTable? Alternatives { get; private init; }

    /// <summary>Its symbols: those given, its own symbol table, or its kallsyms; <see langword="null"/> where it has none.</summary>
    public KernelSymbols? Symbols { get; private init; }

    /// <summary>The function called where an operation is missing, in eras that call one and where it is known.</summary>
    public VirtualAddress? BugTarget =>
        _sites.BugTarget ?? (Era.BugFunction is string name ? Targets.Find(name) : null);

    /// <summary>The names of the backends the kernel can be planned for: native, and those whose functions it has.</summary>
    public IReadOnlyList<string> BackendNames => KernelBackends.NamesFor(this);

    /// <summary>Opens a kernel file: a vmlinux, a vmlinuz (bzImage) or a compressed vmlinux on disk.</summary>
    /// <param name="path">The file.</param>
    /// <param name="image">The image.</param>
    /// <param name="error">
    /// What is wrong: PV60xx for the file, no sites (PV6101), an unknown era (PV6102) or layout (PV6103), no ops table (PV6104), a bad site table (PV1xxx).
    /// </param>
    /// <param name="options">Known facts and limits; the usual ones where <see langword="null"/>.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>Whether the image can be planned.</returns>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static bool TryOpen(
        string path,
        [NotNullWhen(true)] out KernelImage? image,
        [NotNullWhen(false)] out PatchDiagnostic? error,
        KernelOptions? options = null,
        CancellationToken cancellationToken = default)
    {
        image = null;
        return KernelFile.TryLoad(path, options?.Unpacking, out LoadedKernelFile? loaded, out error, cancellationToken) && TryOpen(loaded, path, options, out image, out error);
    }

    /// <summary>Opens a kernel file: a vmlinux, a vmlinuz (bzImage) or a compressed vmlinux on disk.</summary>
    /// <param name="path">The file.</param>
    /// <param name="options">Known facts and limits; the usual ones where <see langword="null"/>.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>The image.</returns>
    /// <exception cref="PatchException">The file is no kernel that can be planned; the codes are those of <see cref="TryOpen(string, out KernelImage, out PatchDiagnostic, KernelOptions, CancellationToken)"/>.</exception>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static KernelImage Open(string path, KernelOptions? options = null, CancellationToken cancellationToken = default) =>
        TryOpen(path, out KernelImage? image, out PatchDiagnostic? error, options, cancellationToken) ? image : throw new PatchException(error);

    /// <summary>Opens a kernel file: a vmlinux, a vmlinuz (bzImage) or a compressed vmlinux in a stream.</summary>
    /// <param name="stream">The stream, read from where it stands to its end; it is not closed.</param>
    /// <param name="image">The image.</param>
    /// <param name="error">
    /// What is wrong: PV60xx for the file, no sites (PV6101), an unknown era (PV6102) or layout (PV6103), no ops table (PV6104), a bad site table (PV1xxx).
    /// </param>
    /// <param name="options">Known facts and limits; the usual ones where <see langword="null"/>.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>Whether the image can be planned.</returns>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static bool TryOpen(
        Stream stream,
        [NotNullWhen(true)] out KernelImage? image,
        [NotNullWhen(false)] out PatchDiagnostic? error,
        KernelOptions? options = null,
        CancellationToken cancellationToken = default)
    {
        image = null;
        return KernelFile.TryLoad(stream, options?.Unpacking, out LoadedKernelFile? loaded, out error, cancellationToken) && TryOpen(loaded, null, options, out image, out error);
    }

    /// <summary>Opens a kernel file: a vmlinux, a vmlinuz (bzImage) or a compressed vmlinux in a stream.</summary>
    /// <param name="stream">The stream, read from where it stands to its end; it is not closed.</param>
    /// <param name="options">Known facts and limits; the usual ones where <see langword="null"/>.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>The image.</returns>
    /// <exception cref="PatchException">The file is no kernel that can be planned; the codes are those of <see cref="TryOpen(Stream, out KernelImage, out PatchDiagnostic, KernelOptions, CancellationToken)"/>.</exception>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static KernelImage Open(Stream stream, KernelOptions? options = null, CancellationToken cancellationToken = default) =>
        TryOpen(stream, out KernelImage? image, out PatchDiagnostic? error, options, cancellationToken) ? image : throw new PatchException(error);

    /// <summary>Opens a kernel file: a vmlinux, a vmlinuz (bzImage) or a compressed vmlinux in memory.</summary>
    /// <param name="file">The whole file. An uncompressed one is not copied: a plan applied to <see cref="Code"/> changes it.</param>
    /// <param name="image">The image.</param>
    /// <param name="error">
    /// What is wrong: PV60xx for the file, no sites (PV6101), an unknown era (PV6102) or layout (PV6103), no ops table (PV6104), a bad site table (PV1xxx).
    /// </param>
    /// <param name="options">Known facts and limits; the usual ones where <see langword="null"/>.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>Whether the image can be planned.</returns>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static bool TryOpen(
        Memory<byte> file,
        [NotNullWhen(true)] out KernelImage? image,
        [NotNullWhen(false)] out PatchDiagnostic? error,
        KernelOptions? options = null,
        CancellationToken cancellationToken = default)
    {
        image = null;
        return KernelFile.TryLoad(file, options?.Unpacking, out LoadedKernelFile? loaded, out error, cancellationToken) && TryOpen(loaded, null, options, out image, out error);
    }

    /// <summary>Opens a kernel file: a vmlinux, a vmlinuz (bzImage) or a compressed vmlinux in memory.</summary>
    /// <param name="file">The whole file. An uncompressed one is not copied: a plan applied to <see cref="Code"/> changes it.</param>
    /// <param name="options">Known facts and limits; the usual ones where <see langword="null"/>.</param>
    /// <param name="cancellationToken">Stops the work.</param>
    /// <returns>The image.</returns>
    /// <exception cref="PatchException">The file is no kernel that can be planned; the codes are those of <see cref="TryOpen(Memory{byte}, out KernelImage, out PatchDiagnostic, KernelOptions, CancellationToken)"/>.</exception>
    /// <exception cref="OperationCanceledException">The work was stopped.</exception>
    public static KernelImage Open(Memory<byte> file, KernelOptions? options = null, CancellationToken cancellationToken = default) =>
        TryOpen(file, out KernelImage? image, out PatchDiagnostic? error, options, cancellationToken) ? image : throw new PatchException(error);

    /// <summary>
    /// Writes the image as it is in memory now: what the ELF headers account for, so not the KASLR relocations behind a kernel unpacked from a bzImage.
    /// How a file is made whole and lasting is the caller's to say; <c>pvpatch patch</c> writes beside the file, waits for the disk and renames.
    /// </summary>
    /// <param name="destination">The stream, written to from where it stands; neither flushed nor closed.</param>
    /// <exception cref="IOException">The stream cannot be written to.</exception>
    public void Save(Stream destination)
    {
        ArgumentNullException.ThrowIfNull(destination);
        destination.Write(Elf.File.Span[..(int)Elf.EndOfFileContent]);
    }

    /// <summary>Opens a kernel's ELF file.</summary>
    /// <param name="elf">The file.</param>
    /// <param name="image">The image.</param>
    /// <param name="error">What is wrong: an unlinked file (PV6011), no sites (PV6101), an unknown layout (PV6103), no ops table (PV6104), a bad site table (PV1xxx).</param>
    /// <returns>Whether the image can be planned.</returns>
    internal static bool TryOpen(ElfImage elf, [NotNullWhen(true)] out KernelImage? image, [NotNullWhen(false)] out PatchDiagnostic? error) =>
        TryOpen(elf, null, out image, out error);

    /// <summary>Opens a kernel's ELF file.</summary>
    /// <param name="elf">The file.</param>
    /// <param name="options">What the caller knows better; <see langword="null"/> for nothing.</param>
    /// <param name="image">The image.</param>
    /// <param name="error">What is wrong: an unlinked file (PV6011), no sites (PV6101), an unknown layout (PV6103), no ops table (PV6104), a bad site table (PV1xxx).</param>
    /// <returns>Whether the image can be planned.</returns>
    internal static bool TryOpen(
        ElfImage elf, KernelOptions? options, [NotNullWhen(true)] out KernelImage? image, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentNullException.ThrowIfNull(elf);
        options ??= new KernelOptions();
        image = null;
        if (elf.Type == ElfFileType.Relocatable)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.ElfNotSupported, "the file is not linked: its code and tables have no addresses yet") with
            {
                Found = "a relocatable file, as a module is",
                Expected = "a vmlinux or vmlinuz",
            };
            return false;
        }

        if (!KernelEraDetector.TryFindSource(elf, out SiteSource source, out error))
        {
            return false;
        }

        KernelSymbols? symbols = options.Symbols ?? (KernelSymbols.TryFromImage(elf, out KernelSymbols? own, out _) ? own : null);
        CodeImage code = CodeOf(elf);
        if (!TryFindLayoutAndEra(elf, code, source, options, symbols, out OpsLayout? layout, out int lockTable, out KernelEra? era, out SiteEvidence? evidence, out error))
        {
            return false;
        }

        AltInstrTable? alternatives = null;
        if (era.Alternatives is not null && !AltInstrTable.TryRead(elf, out alternatives, out error))
        {
            return false;
        }

        var table = new NativeTable(elf, symbols);
        if (!TryFindSites(elf, code, era, layout, lockTable, alternatives, symbols, evidence, table, out KernelSites? sites, out error)
            || !table.TryRead(layout, sites.SlotWords, out SlotTargets? targets, out error))
        {
            return false;
        }

        image = new KernelImage(elf, code, era, layout, sites, targets) { Alternatives = alternatives, Symbols = symbols };
        return true;
    }

    /// <summary>The sections of code of an ELF file as an image at link addresses: what a plan made for it is applied to.</summary>
    /// <param name="elf">The file.</param>
    /// <returns>The image; it views the file's own bytes.</returns>
    internal static CodeImage CodeOf(ElfImage elf)
    {
        ArgumentNullException.ThrowIfNull(elf);
        return new CodeImage(
            elf.Bitness,
            elf.Sections
                .Where(static s => s.IsAllocated && s.IsExecutable && s.HasFileContent && s.Size > 0 && (s.Flags & ElfSectionAttributes.ThreadLocal) == 0)
                .Select(s => new CodeSegment(s.Name, s.Address, elf.GetBytes(s))));
    }

    /// <summary>The layout and the era: what the caller says, else what the image's type information says, else what its sites and tables tell.</summary>
    private static bool TryFindLayoutAndEra(
        ElfImage elf,
        CodeImage code,
        SiteSource source,
        KernelOptions options,
        KernelSymbols? symbols,
        [NotNullWhen(true)] out OpsLayout? layout,
        out int lockTable,
        [NotNullWhen(true)] out KernelEra? era,
        out SiteEvidence? evidence,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        layout = options.Layout;
        lockTable = layout?.Count ?? 0;
        era = options.Era;
        evidence = null;
        if (!Agree(elf, source, options, out error))
        {
            return false;
        }

        bool asksSites = options.Layout is not null || era is { Placement: not SlotPlacement.OneTable } || !elf.TryGetSection(KernelLayoutReader.Section, out _);
        return !(source == SiteSource.ParaInstructions && asksSites && !SiteEvidence.TryRead(elf, code, out evidence, out error))
            && (layout is not null || KernelLayoutReader.TryRead(elf, symbols, evidence, era, out layout, out lockTable, out error))
            && (era is not null || KernelEraDetector.TryDetect(elf, source, layout, evidence, symbols, out era, out error));
    }

    /// <summary>Whether what the caller says can be true of the image.</summary>
    private static bool Agree(ElfImage elf, SiteSource source, KernelOptions options, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        if (options.Layout is OpsLayout layout && KernelLayouts.BitnessOf(layout) is int bitness and not 0 && bitness != elf.Bitness)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.LayoutWrongBitness, $"the layout {layout.Name} is of a {bitness}-bit kernel") with
            {
                Found = $"{bitness} bits",
                Expected = $"{elf.Bitness} bits, as the image has",
            };
        }
        else if (options.Era is KernelEra era && era.Source != source)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.EraWrongSource, $"the image is not of the era {era}") with
            {
                Found = source == SiteSource.ParaInstructions ? $"sites in {KernelEraDetector.SiteTableSection}" : $"sites in {AltInstrTable.SectionName}",
                Expected = string.Join(", ", KernelEra.All.Where(e => e.Source == source)),
            };
        }

        return error is null;
    }

    private static bool TryOpen(
        LoadedKernelFile file, string? path, KernelOptions? options, [NotNullWhen(true)] out KernelImage? image, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        image = null;
        if (ElfImage.TryRead(file.Image, out ElfImage? elf, out error) && TryOpen(elf, options, out image, out error))
        {
            return true;
        }

        error = error with { Source = path };
        return false;
    }

    private static bool TryFindSites(
        ElfImage elf,
        CodeImage code,
        KernelEra era,
        OpsLayout layout,
        int lockTable,
        AltInstrTable? alternatives,
        KernelSymbols? symbols,
        SiteEvidence? evidence,
        NativeTable table,
        [NotNullWhen(true)] out KernelSites? sites,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        sites = null;
        if (era.Source == SiteSource.ParaInstructions)
        {
            return KernelSites.TryReadTable(elf, code, era, layout, symbols, evidence, out sites, out error);
        }

        var locator = new SlotWordLocator(code, alternatives!, symbols);
        return locator.TryFind(layout, lockTable, words => table.TryRead(layout, words, out _, out _), out VirtualAddress[]? words, out error)
            && KernelSites.TryReadDirectCalls(elf, code, alternatives!, layout, words, out sites, out error);
    }
}
