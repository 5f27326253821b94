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

/// <summary>The sites of a kernel, and the addresses of the words that they call through.</summary>
internal sealed record KernelSites
{
    public required SiteTable Sites { get; init; }

    /// <summary>The address of each slot's word, by slot index.</summary>
    public required IReadOnlyList<VirtualAddress> SlotWords { get; init; }

    public IReadOnlyList<ParaInstruction> Records { get; init; } = [];

    /// <summary>Target of a direct call before it is patched: the function called for a missing operation.</summary>
    public VirtualAddress? BugTarget { get; init; }

    /// <summary>Reads a <c>.parainstructions</c> table, and finds the words of its slots.</summary>
    /// <param name="elf">The image.</param>
    /// <param name="code">Its code.</param>
    /// <param name="era">Its era.</param>
    /// <param name="layout">Its slots.</param>
    /// <param name="symbols">Its symbols.</param>
    /// <param name="evidence">Evidence of its sites; required for eras whose slots are not one table.</param>
    /// <param name="result">The sites.</param>
    /// <param name="error">The reason where there are none.</param>
    public static bool TryReadTable(
        ElfImage elf,
        CodeImage code,
        KernelEra era,
        OpsLayout layout,
        KernelSymbols? symbols,
        SiteEvidence? evidence,
        [NotNullWhen(true)] out KernelSites? result,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        result = null;
        if (!TryReadRecords(elf, code, era, out SiteTable? sites, out ParaInstruction[]? records, out error)
            || !TryFindWords(code, era, layout, symbols, evidence, records, out VirtualAddress[]? words, out error))
        {
            return false;
        }

        result = new KernelSites { Sites = sites, SlotWords = words, Records = records };
        return true;
    }

    /// <summary>Reads the records of <c>.parainstructions</c> and makes sites of them: all lie in code and apart from each other.</summary>
    public static bool TryReadRecords(
        ElfImage elf,
        CodeImage code,
        KernelEra era,
        [NotNullWhen(true)] out SiteTable? sites,
        [NotNullWhen(true)] out ParaInstruction[]? records,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        sites = null;
        records = null;
        ParaInstructionsFormat format = era.SiteTable(elf.Bitness);
        if (!elf.TryGetSection(KernelEraDetector.SiteTableSection, out ElfSection? section, out error)
            || !format.TryRead(elf.GetBytes(section).Span, out records, out error, section.FileOffset))
        {
            return false;
        }

        var list = new PatchSite[records.Length];
        for (int i = 0; i < records.Length; i++)
        {
            list[i] = records[i].ToSite(format);
            if (!IsCode(code, records[i].Address, records[i].Length, i, section.FileOffset + (i * (long)format.Stride), out error))
            {
                return false;
            }
        }

        return TryMakeTable(list, i => section.FileOffset + (i * (long)format.Stride), out sites, out error);
    }

    private static bool TryFindWords(
        CodeImage code,
        KernelEra era,
        OpsLayout layout,
        KernelSymbols? symbols,
        SiteEvidence? evidence,
        ParaInstruction[] records,
        [NotNullWhen(true)] out VirtualAddress[]? words,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        if (era.Placement != SlotPlacement.OneTable)
        {
            return TableLocator.TryFind(evidence!, layout, era.Placement, symbols, out words, out error);
        }

        bool found = PvOpsLocator.TryFind(code, records, out VirtualAddress? table, out error);
        words = found ? [.. layout.Slots.Select(s => table!.Value + (long)s.Index * (code.Bitness / 8))] : null;
        return words is not null;
    }

    /// <summary>Makes sites of the alternatives that are direct calls. Their slots are known by the addresses they call through.</summary>
    public static bool TryReadDirectCalls(
        ElfImage elf,
        CodeImage code,
        AltInstrTable alternatives,
        OpsLayout layout,
        IReadOnlyList<VirtualAddress> words,
        [NotNullWhen(true)] out KernelSites? result,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        result = null;
        var slots = new Dictionary<ulong, OpSlot>();
        foreach (OpSlot slot in layout.Slots)
        {
            slots.TryAdd(words[slot.Index].Value, slot);
        }

        var list = new List<PatchSite>();
        VirtualAddress? bug = null;
        foreach (ref readonly AltInstr record in alternatives.Records)
        {
            if (!record.IsDirectCall)
            {
                continue;
            }

            if (!IsCode(code, record.Address, record.Length, list.Count, null, out error)
                || !DirectCall.TryReadSlotAddress(code, record, out VirtualAddress word, out error)
                || !DirectCall.TryReadBugTarget(elf, record, ref bug, out error))
            {
                return false;
            }

            if (!slots.TryGetValue(word.Value, out OpSlot? slot))
            {
                error = PatchDiagnostic.Error(
                    KernelDiagnosticCodes.OpsTableNotFound, "a direct call goes through a word that belongs to no slot") with
                {
                    Address = record.Address,
                    Found = word.ToString(),
                    Expected = $"one of the {layout.Count} words of {layout.Name}",
                };
                return false;
            }

            list.Add(new PatchSite(record.Address, slot.Index, record.Length, slot.Convention.DestroyedBy(elf.Bitness)));
        }

        if (!TryMakeTable([.. list], null, out SiteTable? sites, out error))
        {
            return false;
        }

        result = new KernelSites { Sites = sites, SlotWords = words, BugTarget = bug };
        return true;
    }

    private static bool IsCode(
        CodeImage code, VirtualAddress address, int length, int index, long? fileOffset, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = code.Find(address, length) is not null ? null : PatchDiagnostic.Error(
            DiagnosticCodes.SiteOutsideImage, "a record of the site table names an address outside every section of code") with
        {
            SiteIndex = index,
            Address = address,
            FileOffset = fileOffset,
            Found = $"{address}+{length}",
            Expected = code.ToString(),
            Help = "The table is damaged, or its records have another size than this era's.",
        };
        return error is null;
    }

    private static bool TryMakeTable(
        PatchSite[] list, Func<int, long>? fileOffset, [NotNullWhen(true)] out SiteTable? sites,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        bool made = SiteTable.TryCreate(list, out sites, out IReadOnlyList<PatchDiagnostic> diagnostics);
        error = made ? null : diagnostics[0] with { FileOffset = fileOffset?.Invoke(diagnostics[0].SiteIndex ?? 0) };
        return made;
    }
}
