using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;
using PvPatch.Linux.Files;
using PvPatch.Records;

namespace PvPatch.Linux.Objects;

/// <summary>
/// An ELF file of a guest, firmware or program: an object file, placed at addresses and relocated, or a linked file. Its sites are those
/// that its code recorded with <c>pvpatch.inc</c>, and those its relocations tell of.
/// </summary>
public sealed class ObjectFile
{
    private const int RecordLength = 32;

    private readonly ElfImage _file;
    private readonly ElfSymbolTable? _symbols;
    private readonly PlacedObject _placed;
    private readonly ObjectOptions _options;

    private ObjectFile(ElfImage file, ElfSymbolTable? symbols, PlacedObject placed, ObjectOptions options)
    {
        _file = file;
        _symbols = symbols;
        _placed = placed;
        _options = options;
    }

    /// <summary>32 or 64.</summary>
    public int Bitness => _file.Bitness;

    /// <summary>
    /// Whether the file is linked; else it is an object file, and its addresses are those of <see cref="ObjectOptions"/>.
    /// </summary>
    public bool IsLinked => _file.Type != ElfFileType.Relocatable;

    /// <summary>
    /// The sections of code at run addresses. Of a linked file it views the caller's bytes, so a plan applied to it changes the file in
    /// memory; of an object file a relocated copy.
    /// </summary>
    public CodeImage Code => _placed.Code;

    /// <summary>Reads a file, or throws.</summary>
    /// <param name="path">The file.</param>
    /// <param name="options">Addresses for an object file; the defaults where <see langword="null"/>.</param>
    /// <returns>The file.</returns>
    /// <exception cref="PatchException">The file cannot be read, is no ELF file for x86, or is damaged.</exception>
    public static ObjectFile Open(string path, ObjectOptions? options = null) =>
        TryOpen(path, out ObjectFile? file, out PatchDiagnostic? error, options) ? file : throw new PatchException(error);

    /// <summary>Reads a file that is in memory, or throws.</summary>
    /// <param name="bytes">The whole file. It is kept; it must not change but by plans as long as the file is used.</param>
    /// <param name="options">Addresses for an object file; the defaults where <see langword="null"/>.</param>
    /// <returns>The file.</returns>
    /// <exception cref="PatchException">The bytes are no ELF file for x86, or a damaged one.</exception>
    public static ObjectFile Open(Memory<byte> bytes, ObjectOptions? options = null) =>
        TryOpen(bytes, out ObjectFile? file, out PatchDiagnostic? error, options) ? file : throw new PatchException(error);

    /// <summary>Reads a file.</summary>
    /// <param name="path">The file.</param>
    /// <param name="file">The file, read.</param>
    /// <param name="error">
    /// What is wrong: PV6001 to PV6003 and PV6030 to PV6040 for the file, PV6010 to PV6021 for the ELF file in it, PV6142 and PV6180 for
    /// the relocations and addresses of an object file.
    /// </param>
    /// <param name="options">Addresses for an object file; the defaults where <see langword="null"/>.</param>
    /// <returns>Whether it was read.</returns>
    public static bool TryOpen(
        string path, [NotNullWhen(true)] out ObjectFile? file, [NotNullWhen(false)] out PatchDiagnostic? error,
        ObjectOptions? options = null)
    {
        file = null;
        bool read = KernelFile.TryLoad(path, null, out LoadedKernelFile? loaded, out error)
            && TryOpen(loaded.Image, out file, out error, options);
        error = error is null ? null : error with { Source = error.Source ?? path };
        return read;
    }

    /// <summary>Reads a file that is in memory.</summary>
    /// <param name="bytes">The whole file. It is kept; it must not change but by plans as long as the file is used.</param>
    /// <param name="file">The file, read.</param>
    /// <param name="error">
    /// What is wrong: PV6010 to PV6021 for the ELF file, PV6142 and PV6180 for the relocations and addresses of an object file.
    /// </param>
    /// <param name="options">Addresses for an object file; the defaults where <see langword="null"/>.</param>
    /// <returns>Whether it was read.</returns>
    public static bool TryOpen(
        Memory<byte> bytes, [NotNullWhen(true)] out ObjectFile? file, [NotNullWhen(false)] out PatchDiagnostic? error,
        ObjectOptions? options = null)
    {
        file = null;
        options ??= new ObjectOptions();
        if (!ElfImage.TryRead(bytes, out ElfImage? elf, out error)
            || (!elf.TryReadSymbols(out ElfSymbolTable? symbols, out error) && error.Code != KernelDiagnosticCodes.ElfNoSymbols))
        {
            return false;
        }

        if (!PlacedObject.TryMake(elf, symbols, options.Address, options.Symbols, out PlacedObject? placed, out error))
        {
            return false;
        }

        file = new ObjectFile(elf, symbols, placed, options);
        return true;
    }

    /// <summary>Reads the records of <c>pvpatch.inc</c>, or throws.</summary>
    /// <returns>The records.</returns>
    /// <exception cref="PatchException">There are none, or one is not sound; see <see cref="TryReadRecords"/>.</exception>
    public SiteRecords ReadRecords() =>
        TryReadRecords(out SiteRecords? records, out IReadOnlyList<PatchDiagnostic> diagnostics)
            ? records : throw new PatchException(diagnostics[0]);

    /// <summary>Reads the records of <c>pvpatch.inc</c>: the section <c>pvpatch_sites</c>.</summary>
    /// <param name="records">The records.</param>
    /// <param name="diagnostics">
    /// What is wrong: PV6020 for a file without records, PV6181 for records or sites that refer to a symbol without an address, PV6185 for
    /// several tables, PV1xxx for records that are not sound, with their file offset.
    /// </param>
    /// <returns>Whether there are records and all are sound.</returns>
    public bool TryReadRecords([NotNullWhen(true)] out SiteRecords? records, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        records = null;
        ElfImage elf = _placed.Elf;
        ElfSection[] tables = [.. elf.Sections.Where(static s => s.Name == SiteRecords.SectionName && s.IsAllocated && s.HasFileContent)];
        if (tables.Length != 1)
        {
            diagnostics = [tables.Length == 0
                ? PatchDiagnostic.Error(
                    KernelDiagnosticCodes.ElfSectionMissing, $"the file has no section {SiteRecords.SectionName} that is loaded") with
                {
                    Help = "Its code was not assembled with pvpatch.inc, or its linker script drops or renames the section.",
                }
                : PatchDiagnostic.Error(
                    KernelDiagnosticCodes.ObjectSeveralTables, $"the file has {tables.Length} sections {SiteRecords.SectionName}") with
                {
                    FileOffset = tables[1].FileOffset,
                    Help = "Link the file: the linker joins them.",
                }];
            return false;
        }

        ElfSection table = tables[0];
        CodeSegment? names = elf.Sections.FirstOrDefault(
            static s => s.Name == SiteRecords.NamesSectionName && s.IsAllocated && s.HasFileContent)
            is ElfSection section ? new CodeSegment(section.Name, section.Address, elf.GetBytes(section)) : null;
        if (!_placed.TryCheck(table.Address, (long)table.Size, "a record", out PatchDiagnostic? error))
        {
            diagnostics = [error with { FileOffset = table.FileOffset + (error.Address!.Value - table.Address) }];
            return false;
        }

        var segment = new CodeSegment(table.Name, table.Address, elf.GetBytes(table));
        bool read = SiteRecords.TryRead(Code, segment, names, out records, out IReadOnlyList<PatchDiagnostic> found);
        diagnostics = [.. found.Select(d => d with { FileOffset = table.FileOffset + ((long)(d.SiteIndex ?? 0) * RecordLength) })];
        if (read && !TryCheckCode(records!, out error))
        {
            records = null;
            diagnostics = [error];
        }

        return records is not null;
    }

    /// <summary>Finds the sites that relocations tell of, or throws.</summary>
    /// <param name="names">The tables and functions whose callers are sites.</param>
    /// <returns>The sites.</returns>
    /// <exception cref="PatchException">The file keeps no relocations, or they are damaged; see <see cref="TryFindSites"/>.</exception>
    public RelocatedSites FindSites(SiteNames names) =>
        TryFindSites(names, out RelocatedSites? sites, out IReadOnlyList<PatchDiagnostic> diagnostics)
            ? sites : throw new PatchException(diagnostics[0]);

    /// <summary>
    /// Finds the sites that relocations tell of: calls and jumps through a listed table, direct calls of a listed function, whether a
    /// compiler or an author of assembly made them. The file is an object file, or linked with <c>--emit-relocs</c>.
    /// </summary>
    /// <param name="names">The tables and functions whose callers are sites.</param>
    /// <param name="sites">The sites.</param>
    /// <param name="diagnostics">
    /// Where there are none, why: PV6183 for a file without relocations of its code, PV6142 for damaged ones, PV6022 for a file without
    /// symbols, PV6182 for a name of several symbols, PV1015 for two functions of one slot. Else what was passed over: PV6086 for names
    /// that the file does not have (warnings), PV6184 for references that are no calls (for information).
    /// </param>
    /// <returns>Whether the relocations were read.</returns>
    public bool TryFindSites(
        SiteNames names, [NotNullWhen(true)] out RelocatedSites? sites, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        ArgumentNullException.ThrowIfNull(names);
        sites = null;
        var found = new List<PatchDiagnostic>();
        if (_symbols is null)
        {
            found.Add(PatchDiagnostic.Error(KernelDiagnosticCodes.ElfNoSymbols, "the file has no symbol table to find the names in"));
        }
        else if (ListedSymbols.TryResolve(_file, _symbols, _placed, names, found, out ListedSymbols? listed)
            && TryPlaceListed(listed, found, out PlacedObject? placed))
        {
            RelocationScan.TryFind(_file, _symbols, placed, listed, names.Layout, found, out sites);
        }

        diagnostics = found;
        return sites is not null;
    }

    /// <summary>
    /// The listed names that an object file does not define get addresses of their own for the search, behind its sections. The caller
    /// never sees them.
    /// </summary>
    private bool TryPlaceListed(ListedSymbols listed, List<PatchDiagnostic> found, [NotNullWhen(true)] out PlacedObject? placed)
    {
        placed = _placed;
        if (listed.StandIns.Count == 0)
        {
            return true;
        }

        var known = new Dictionary<string, VirtualAddress>(_options.Symbols);
        foreach ((string name, VirtualAddress address) in listed.StandIns)
        {
            known[name] = address;
        }

        if (PlacedObject.TryMake(_file, _symbols, _options.Address, known, out placed, out PatchDiagnostic? error))
        {
            return true;
        }

        found.Add(error);
        return false;
    }

    /// <summary>Whether the bytes that records speak of are what they will be: code whose relocations are done.</summary>
    private bool TryCheckCode(SiteRecords records, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        IEnumerable<(VirtualAddress Address, int Length)> ranges =
            records.Sites.Select(static s => (s.Address, s.Budget))
                .Concat(records.StaticKeys.Select(static r => (r.Address, r.Length)))
                .Concat(records.MultiBranches.Select(static r => (r.Address, r.Length)))
                .Concat(records.StaticCalls.Select(static r => (r.Address, r.Length)))
                .Concat(records.Variants.Concat(records.Alternatives).SelectMany(static r =>
                    (IEnumerable<(VirtualAddress, int)>)[(r.Address, r.Length), (r.Code, r.CodeLength)]));
        foreach ((VirtualAddress address, int length) in ranges)
        {
            if (!_placed.TryCheck(address, length, "the code of a site", out error))
            {
                return false;
            }
        }

        error = null;
        return true;
    }
}
