using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>
/// Refuses files in which two loaded sections share bytes or addresses, or a loaded section covers the headers: the bytes of one
/// address would then be changed under another, or the headers with them.
/// </summary>
internal static class ElfOverlapCheck
{
    private readonly record struct Range(ulong Start, ulong Size, string Name);

    public static bool TryCheck(ElfHeader header, int sectionCount, int segmentCount, ElfSection[] byAddress, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        var ranges = new List<Range>(byAddress.Length + 3) { new(0, (ulong)header.Size, "the ELF header") };
        AddTable(ranges, header.SectionTableOffset, sectionCount, header.ExpectedSectionEntrySize, "the section header table");
        AddTable(ranges, header.SegmentTableOffset, segmentCount, header.ExpectedSegmentEntrySize, "the program header table");
        foreach (ElfSection section in byAddress)
        {
            ranges.Add(new Range((ulong)section.FileOffset, section.Size, section.Name));
        }

        ranges.Sort(static (a, b) => a.Start.CompareTo(b.Start));
        Range before = ranges[0];
        foreach (Range after in ranges.Skip(1))
        {
            if (after.Start - before.Start < before.Size && !AreBothTables(before, after))
            {
                error = Overlap($"{before.Name} and {after.Name} share bytes of the file", after.Start, before) with { FileOffset = (long)after.Start };
                return false;
            }

            // The range that reaches furthest: headers may be laid over each other, so it need not be the last one.
            before = after.Start + after.Size > before.Start + before.Size ? after : before;
        }

        for (int i = 1; i < byAddress.Length; i++)
        {
            ElfSection low = byAddress[i - 1];
            ElfSection high = byAddress[i];
            if (high.Address.Value - low.Address.Value < low.Size)
            {
                error = Overlap($"{low.Name} and {high.Name} share addresses", high.Address.Value, new Range(low.Address.Value, low.Size, low.Name)) with
                {
                    Address = high.Address,
                    FileOffset = high.FileOffset,
                };
                return false;
            }
        }

        return true;
    }

    private static void AddTable(List<Range> ranges, ulong offset, int count, int entrySize, string name)
    {
        if (count > 0)
        {
            ranges.Add(new Range(offset, (ulong)count * (ulong)entrySize, name));
        }
    }

    // Headers laid over each other are odd, but nothing that is patched lies in them.
    private static bool AreBothTables(Range a, Range b) =>
        a.Name.StartsWith("the ", StringComparison.Ordinal) && b.Name.StartsWith("the ", StringComparison.Ordinal);

    private static PatchDiagnostic Overlap(string message, ulong found, Range before) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.ElfOverlap, message) with
        {
            Found = $"{FileRange.Hex(found)} inside {FileRange.Describe(before.Start, before.Size)}",
            Expected = "loaded sections apart from each other and from the headers",
            Help = "No linker lays out a kernel so; the section headers are damaged or forged",
        };
}
