using PvPatch.Linux.Tables;

namespace PvPatch.Tool.Explain;

/// <summary>Explanation of a site as JSON.</summary>
internal sealed record ExplainDocument() : ToolDocument("pvpatch-explain")
{
    public required string Image { get; init; }

    public required int Index { get; init; }

    public required int Total { get; init; }

    public required string Address { get; init; }

    public required string Slot { get; init; }

    public string? Place { get; init; }

    public long? FileOffset { get; init; }

    public required bool ClobbersRespected { get; init; }

    public string? Native { get; init; }

    public required IReadOnlyList<ExplainInstruction> OldCode { get; init; }

    public required IReadOnlyList<ExplainAlternative> Alternatives { get; init; }

    public required IReadOnlyList<ExplainBackend> Backends { get; init; }

    public static ExplainDocument Of(SiteExplanation site, string path)
    {
        var disassembler = new Disassembler(site.Image.Elf.Bitness, site.Names.NameOf);
        VirtualAddress address = site.Site.Address;
        return new ExplainDocument
        {
            Image = path,
            Index = site.Index,
            Total = site.Image.Sites.Count,
            Address = JsonOutput.Hex(address),
            Slot = site.Slot.Name,
            Place = site.Names.PlaceOf(address),
            FileOffset = site.FileOffset,
            ClobbersRespected = site.ClobbersCount,
            Native = JsonOutput.Hex(site.Native.Target),
            OldCode = Code(site.DecisionOf(site.Plans[0]).OldBytes),
            Alternatives = [.. site.Alternatives.Select(r => Alternative(site, r))],
            Backends = [.. site.Plans.Select(
                p => new ExplainBackend(p.Backend, p.Rules, JsonPart.Site(p, address), Code(site.DecisionOf(p).NewBytes)))],
        };

        IReadOnlyList<ExplainInstruction> Code(ReadOnlySpan<byte> bytes) =>
            [.. disassembler.Decode(bytes, address)
                .Select(static i => new ExplainInstruction(JsonOutput.Hex(i.Address), i.Length, i.Text))];
    }

    private static ExplainAlternative Alternative(SiteExplanation site, AltInstr record) => new(
        site.Condition(record),
        record.Feature,
        record.IsNot,
        record.IsDirectCall,
        JsonOutput.Hex(record.ReplacementAddress),
        HexBytes.Format(site.Replacement(record).Span));
}

internal sealed record ExplainInstruction(string Address, int Length, string Text);

internal sealed record ExplainAlternative(
    string Condition, int Feature, bool Not, bool DirectCall, string ReplacementAddress, string Replacement);

internal sealed record ExplainBackend(string Backend, string Rules, JsonPart Site, IReadOnlyList<ExplainInstruction> NewCode);

/// <summary>Explanation of a slot as JSON.</summary>
internal sealed record ExplainSlotDocument(
    string Image, string Slot, int Type, int Total, string? Native, IReadOnlyList<ExplainSlotBackend> Backends)
    : ToolDocument("pvpatch-explain-slot");

internal sealed record ExplainSlotBackend(string Backend, string Rules, IReadOnlyList<JsonPart> Sites);
