using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;

namespace PvPatch.Linux.Files;

/// <summary>
/// An ELF file for x86-64 or i386 as it stands in memory: its headers, checked, over the caller's bytes. Nothing is copied; a
/// change of the bytes handed out is a change of the file.
/// </summary>
/// <remarks>
/// Executables (<c>vmlinux</c>), shared objects and relocatable files (modules) are read; the sections of the latter have no
/// addresses yet. Every header field that is used was checked against the length of the file when the image was made.
/// </remarks>
internal sealed class ElfImage
{
    private readonly ElfSection[] _byAddress;

    private ElfImage(
        Memory<byte> file, ElfHeader header, ElfSection[] sections, ElfSegment[] segments, ElfSection[] byAddress,
        IReadOnlyList<PatchDiagnostic> warnings)
    {
        File = file;
        Bitness = header.Bitness;
        Type = header.Type;
        Machine = header.Machine;
        Entry = header.Entry;
        Sections = sections;
        Segments = segments;
        Warnings = warnings;
        _byAddress = byAddress;
        EndOfFileContent = FindEnd(header, sections, segments);
    }

    /// <summary>The bytes of the whole file, the caller's own.</summary>
    public Memory<byte> File { get; }

    /// <summary>32 or 64: the width of addresses, by the ELF class.</summary>
    public int Bitness { get; }

    /// <summary>The file's type.</summary>
    public ElfFileType Type { get; }

    /// <summary>The processor it is for.</summary>
    public ElfMachine Machine { get; }

    /// <summary>The entry point; a physical address in kernels.</summary>
    public VirtualAddress Entry { get; }

    /// <summary>
    /// All sections in the order of their headers, the unused one at index 0 included; empty where the file has no section headers.
    /// </summary>
    public IReadOnlyList<ElfSection> Sections { get; }

    /// <summary>All program headers, in their order.</summary>
    public IReadOnlyList<ElfSegment> Segments { get; }

    /// <summary>Warnings about a file that can be read: missing section headers or names.</summary>
    public IReadOnlyList<PatchDiagnostic> Warnings { get; }

    /// <summary>
    /// The size in bytes that the headers account for. In an unpacked bzImage the relocations for KASLR follow from here on.
    /// </summary>
    public long EndOfFileContent { get; }

    /// <summary>Whether bytes start with the ELF magic number.</summary>
    /// <param name="file">The start of a file.</param>
    /// <returns>Whether they do; the file may still be damaged.</returns>
    public static bool HasMagic(ReadOnlySpan<byte> file) => ElfHeader.HasMagic(file);

    /// <summary>Reads the headers of an ELF file.</summary>
    /// <param name="file">The whole file. The image keeps it and hands out parts of it.</param>
    /// <param name="image">The image.</param>
    /// <param name="error">What is wrong with the file: codes PV6010 to PV6018.</param>
    /// <returns>Whether the file was read.</returns>
    public static bool TryRead(Memory<byte> file, [NotNullWhen(true)] out ElfImage? image, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        image = null;
        var warnings = new List<PatchDiagnostic>();
        if (!ElfHeader.TryRead(file.Span, out ElfHeader? header, out error)
            || !ElfSectionReader.TryRead(file, header, warnings, out ElfSection[]? sections, out error)
            || !ElfSegmentReader.TryRead(file.Span, header, sections, out ElfSegment[]? segments, out error))
        {
            return false;
        }

        // In relocatable files all addresses are 0 still, so there is nothing to look up by address.
        ElfSection[] byAddress = header.Type == ElfFileType.Relocatable
            ? []
            : [.. sections.Where(IsMapped).OrderBy(static s => s.Address.Value)];
        if (!ElfOverlapCheck.TryCheck(header, sections, segments, byAddress, out error))
        {
            return false;
        }

        image = new ElfImage(file, header, sections, segments, byAddress, warnings);
        return true;
    }

    /// <summary>Reads the headers of an ELF file.</summary>
    /// <param name="file">The whole file. The image keeps it and hands out parts of it.</param>
    /// <returns>The image.</returns>
    /// <exception cref="PatchException">The file is damaged or not supported: codes PV6010 to PV6018.</exception>
    public static ElfImage Read(Memory<byte> file) =>
        TryRead(file, out ElfImage? image, out PatchDiagnostic? error) ? image : throw new PatchException(error);

    /// <summary>Looks for the first section of a name.</summary>
    /// <param name="name">The name, for example <c>.altinstructions</c>.</param>
    /// <param name="section">The section.</param>
    /// <returns>Whether there is one.</returns>
    public bool TryGetSection(string name, [NotNullWhen(true)] out ElfSection? section)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        section = Sections.FirstOrDefault(s => s.Name == name);
        return section is not null;
    }

    /// <summary>Looks for the first section of a name and says why there is none.</summary>
    /// <param name="name">The name, for example <c>.altinstructions</c>.</param>
    /// <param name="section">The section.</param>
    /// <param name="error">Why there is none: code PV6019 for a file without section headers, PV6020 for one without this section.</param>
    /// <returns>Whether there is one.</returns>
    public bool TryGetSection(string name, [NotNullWhen(true)] out ElfSection? section, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        if (TryGetSection(name, out section))
        {
            return true;
        }

        error = Warnings.Count > 0
            ? PatchDiagnostic.Error(
                Warnings[0].Code, Warnings[0].Message) with
            { Expected = $"the section {name}", Help = Warnings[0].Help }
            : PatchDiagnostic.Error(KernelDiagnosticCodes.ElfSectionMissing, $"The ELF file has no section {name}") with
            {
                Found = $"{Sections.Count} sections",
                Help = "The kernel was built without it, or the section was stripped",
            };
        return false;
    }

    /// <summary>The bytes of a section in the file.</summary>
    /// <param name="section">A section of this image.</param>
    /// <returns>The bytes, not copied; empty for a section without bytes in the file.</returns>
    public Memory<byte> GetBytes(ElfSection section)
    {
        ArgumentNullException.ThrowIfNull(section);
        if ((uint)section.Index >= (uint)Sections.Count || !ReferenceEquals(Sections[section.Index], section))
        {
            throw new ArgumentException("The section belongs to another image", nameof(section));
        }

        return section.HasFileContent ? File.Slice((int)section.FileOffset, (int)section.Size) : default;
    }

    /// <summary>The loaded section that has bytes in the file for an address.</summary>
    /// <param name="address">The address.</param>
    /// <param name="section">The section.</param>
    /// <returns>Whether there is one; never in a relocatable file.</returns>
    public bool TryGetSectionAt(VirtualAddress address, [NotNullWhen(true)] out ElfSection? section)
    {
        int low = 0;
        int high = _byAddress.Length;
        while (low < high)
        {
            int middle = low + ((high - low) / 2);
            if (_byAddress[middle].Address <= address)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        section = low > 0 && _byAddress[low - 1].Contains(address, 1) ? _byAddress[low - 1] : null;
        return section is not null;
    }

    /// <summary>The file offset of the bytes at an address: in the loaded sections first, then in the loaded segments.</summary>
    /// <param name="address">The first address.</param>
    /// <param name="length">The number of bytes, from 1.</param>
    /// <param name="fileOffset">The offset in bytes from the start of the file.</param>
    /// <returns>Whether the file holds all of these bytes, in one piece; never for a relocatable file.</returns>
    public bool TryGetFileOffset(VirtualAddress address, long length, out long fileOffset)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(length);
        if (TryGetSectionAt(address, out ElfSection? section) && section.Contains(address, length))
        {
            fileOffset = section.FileOffset + (address - section.Address);
            return true;
        }

        foreach (ElfSegment segment in Type == ElfFileType.Relocatable ? [] : Segments)
        {
            ulong start = address.Value - segment.Address.Value;
            if (segment.Type == ElfSegmentType.Load && FileRange.Fits(start, (ulong)length, segment.FileSize))
            {
                fileOffset = segment.FileOffset + (long)start;
                return true;
            }
        }

        fileOffset = 0;
        return false;
    }

    /// <summary>The bytes of a range of addresses.</summary>
    /// <param name="address">The first address.</param>
    /// <param name="length">The number of bytes, from 1.</param>
    /// <param name="bytes">The bytes, not copied.</param>
    /// <returns>Whether the file holds all of them, in one piece.</returns>
    public bool TryGetBytes(VirtualAddress address, int length, out Memory<byte> bytes)
    {
        bool found = TryGetFileOffset(address, length, out long fileOffset);
        bytes = found ? File.Slice((int)fileOffset, length) : default;
        return found;
    }

    /// <summary>Reads the symbol table.</summary>
    /// <param name="symbols">The symbols.</param>
    /// <param name="error">Why there are none: code PV6022 for a stripped file, PV6016 or PV6021 for a damaged table.</param>
    /// <returns>Whether the file has a symbol table in order.</returns>
    public bool TryReadSymbols([NotNullWhen(true)] out ElfSymbolTable? symbols, [NotNullWhen(false)] out PatchDiagnostic? error) =>
        ElfSymbolTable.TryRead(this, out symbols, out error);

    /// <summary>The file's sections of code as an image at link addresses: what a plan made for it is applied to.</summary>
    /// <returns>The image; it views the file's own bytes.</returns>
    public CodeImage ToCode() => new(
        Bitness, Sections.Where(IsCode).Select(s => new CodeSegment(s.Name, s.Address, GetBytes(s))));

    /// <summary>Whether a section is one of those of <see cref="ToCode"/>.</summary>
    public static bool IsCode(ElfSection section) =>
        section.IsExecutable && IsMapped(section);

    private static bool IsMapped(ElfSection section) =>
        section.IsAllocated && section.HasFileContent && section.Size > 0 && (section.Flags & ElfSectionAttributes.ThreadLocal) == 0;

    private static long FindEnd(ElfHeader header, ElfSection[] sections, ElfSegment[] segments)
    {
        long end = header.Size;
        if (sections.Length > 0)
        {
            end = Math.Max(end, (long)header.SectionTableOffset + ((long)sections.Length * header.ExpectedSectionEntrySize));
        }

        if (segments.Length > 0)
        {
            end = Math.Max(end, (long)header.SegmentTableOffset + ((long)segments.Length * header.ExpectedSegmentEntrySize));
        }

        foreach (ElfSection section in sections)
        {
            if (section.HasFileContent)
            {
                end = Math.Max(end, section.FileOffset + (long)section.Size);
            }
        }

        foreach (ElfSegment segment in segments)
        {
            end = Math.Max(end, segment.FileOffset + segment.FileSize);
        }

        return end;
    }
}
