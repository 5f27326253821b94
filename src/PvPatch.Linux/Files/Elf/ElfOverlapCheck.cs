using System.Diagnostics.CodeAnalysis;
using PvPatch.Records;

namespace PvPatch.Linux.Files;

/// <summary>
/// Refuses files in which a byte is more than one thing, so that what is written for one address would change something else with it, or
/// would not be what a loader puts there.
/// </summary>
/// <remarks>
/// <code>
/// bytes of the file   a loaded section, and any other section or header          refused
///                     two sections that are not loaded, headers over each other   allowed: nothing of them is written
/// addresses           two loaded sections; code, and a section without bytes      refused
///                     (TLS templates have addresses of their own)                 allowed
///                     two segments                                                refused
/// both                a loaded section that a segment puts elsewhere or cuts      refused: patched would be what does not run
/// tables              a table of sites or of alternatives that is code as well    refused: a patched site could be a record
/// </code>
/// </remarks>
internal static class ElfOverlapCheck
{
    // Tables that a kernel's own patchers walk, and that of pvpatch.inc.
    private static readonly HashSet<string> s_tables =
    [
        ".parainstructions", ".altinstructions", ".smp_locks", ".retpoline_sites", ".return_sites", ".call_sites", ".ibt_endbr_seal",
        "__jump_table", ".static_call_sites", "__mcount_loc", "__ex_table", SiteRecords.SectionName,
    ];

    private readonly record struct Range(ulong Start, ulong Size, string Name, bool IsLoaded)
    {
        public ulong End => Start + Size;
    }

    public static bool TryCheck(
        ElfHeader header, ElfSection[] sections, ElfSegment[] segments, ElfSection[] byAddress,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        if (sections.FirstOrDefault(static s => s.IsAllocated && s.IsExecutable && s_tables.Contains(s.Name)) is ElfSection table)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.ElfOverlap, $"The table {table.Name} is marked as code") with
            {
                Address = table.Address,
                FileOffset = table.FileOffset,
                Found = "an executable section",
                Expected = "a table apart from all code",
                Help = Forged,
            };
        }

        error ??= byAddress.Length == 0 ? null : SharedBytes(header, sections, segments.Length, byAddress);
        error ??= byAddress.Length == 0 ? null : SharedAddresses(byAddress, sections);
        error ??= byAddress.Length == 0 ? null : OfSegments(byAddress, segments);
        return error is null;
    }

    private const string Forged = "No linker lays out a kernel so; the headers are damaged or forged";

    private static PatchDiagnostic? SharedBytes(ElfHeader header, ElfSection[] sections, int segmentCount, ElfSection[] byAddress)
    {
        var ranges = new List<Range>(sections.Length + 3) { new(0, (ulong)header.Size, "the ELF header", IsLoaded: false) };
        AddTable(header.SectionTableOffset, sections.Length, header.ExpectedSectionEntrySize, "the section header table");
        AddTable(header.SegmentTableOffset, segmentCount, header.ExpectedSegmentEntrySize, "the program header table");
        var loaded = new HashSet<ElfSection>(byAddress);
        foreach (ElfSection section in sections)
        {
            if (section.HasFileContent && section.Size > 0)
            {
                ranges.Add(new Range((ulong)section.FileOffset, section.Size, section.Name, loaded.Contains(section)));
            }
        }

        ranges.Sort(static (a, b) => a.Start.CompareTo(b.Start));

        // Of those that start before, the one that reaches furthest; of the loaded ones and of all.
        Range furthestLoaded = default;
        Range furthest = default;
        foreach (Range range in ranges)
        {
            Range before = range.IsLoaded ? furthest : furthestLoaded;
            if (range.Start < before.End)
            {
                return Overlap($"{before.Name} and {range.Name} share bytes of the file", range.Start, before.Start,
                    before.Size) with
                { FileOffset = (long)range.Start };
            }

            furthest = range.End > furthest.End ? range : furthest;
            furthestLoaded = range.IsLoaded && range.End > furthestLoaded.End ? range : furthestLoaded;
        }

        return null;

        void AddTable(ulong offset, int count, int entrySize, string name)
        {
            if (count > 0)
            {
                ranges.Add(new Range(offset, (ulong)count * (ulong)entrySize, name, IsLoaded: false));
            }
        }
    }

    private static PatchDiagnostic? SharedAddresses(ElfSection[] byAddress, ElfSection[] sections)
    {
        for (int i = 1; i < byAddress.Length; i++)
        {
            ElfSection low = byAddress[i - 1];
            ElfSection high = byAddress[i];
            if (high.Address.Value - low.Address.Value < low.Size)
            {
                return Overlap($"{low.Name} and {high.Name} share addresses", high.Address.Value, low.Address.Value, low.Size) with
                {
                    Address = high.Address,
                    FileOffset = high.FileOffset,
                };
            }
        }

        // Memory that the kernel clears where it has code: what is patched there would not be what runs.
        foreach (ElfSection cleared in sections.Where(static s =>
            s is { IsAllocated: true, Type: ElfSectionType.NoBits, Size: > 0 } && (s.Flags & ElfSectionAttributes.ThreadLocal) == 0))
        {
            foreach (ElfSection code in byAddress.Where(static s => s.IsExecutable))
            {
                if (cleared.Address.Value - code.Address.Value < code.Size || code.Address.Value - cleared.Address.Value < cleared.Size)
                {
                    return Overlap($"{code.Name} and {cleared.Name} share addresses", cleared.Address.Value, code.Address.Value,
                        code.Size) with
                    { Address = cleared.Address };
                }
            }
        }

        return null;
    }

    private static PatchDiagnostic? OfSegments(ElfSection[] byAddress, ElfSegment[] segments)
    {
        ElfSegment[] loaded = [
            .. segments.Where(static s => s is { Type: ElfSegmentType.Load, MemorySize: > 0 }).OrderBy(static s => s.Address.Value)];
        for (int i = 1; i < loaded.Length; i++)
        {
            ulong distance = loaded[i].Address.Value - loaded[i - 1].Address.Value;
            if (distance < loaded[i - 1].MemorySize)
            {
                return Overlap(
                    "two segments share addresses", loaded[i].Address.Value, loaded[i - 1].Address.Value, loaded[i - 1].MemorySize) with
                {
                    Address = loaded[i].Address,
                    FileOffset = loaded[i].FileOffset,
                };
            }
        }

        int at = 0;
        foreach (ElfSection section in byAddress)
        {
            ulong last = section.Address.Value + (section.Size - 1);
            while (at < loaded.Length && loaded[at].Address.Value + (loaded[at].MemorySize - 1) < section.Address.Value)
            {
                at++;
            }

            if (at == loaded.Length || loaded[at].Address.Value > last)
            {
                continue; // in no segment: no loader puts it anywhere
            }

            ElfSegment segment = loaded[at];
            ulong start = section.Address.Value - segment.Address.Value;
            if (section.Address < segment.Address || !FileRange.Fits(start, section.Size, segment.FileSize)
                || segment.FileOffset + (long)start != section.FileOffset)
            {
                return PatchDiagnostic.Error(KernelDiagnosticCodes.ElfOverlap,
                    $"A loader would put other bytes at the addresses of {section.Name} than the section has") with
                {
                    Address = section.Address,
                    FileOffset = section.FileOffset,
                    Found =
                        $"a segment at {segment.Address} with the bytes "
                        + $"{FileRange.Describe((ulong)segment.FileOffset, (ulong)segment.FileSize)} of the file",
                    Expected = $"one that has {FileRange.Describe((ulong)section.FileOffset, section.Size)} at {section.Address}",
                    Help = Forged,
                };
            }
        }

        return null;
    }

    private static PatchDiagnostic Overlap(string message, ulong found, ulong start, ulong size) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.ElfOverlap, message) with
        {
            Found = $"{FileRange.Hex(found)} inside {FileRange.Describe(start, size)}",
            Expected = "loaded sections and segments apart from each other, from the headers and from all else in the file",
            Help = Forged,
        };
}
