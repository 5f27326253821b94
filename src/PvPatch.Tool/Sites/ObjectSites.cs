using System.Globalization;
using PvPatch.Images;
using PvPatch.Linux.Objects;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Records;

namespace PvPatch.Tool.Sites;

/// <summary>A site of an object file or program, in what the mechanisms have in common.</summary>
/// <param name="Address">Run address; of an object file by its offset in its section.</param>
/// <param name="Section">The section.</param>
/// <param name="Offset">Offset in the section.</param>
/// <param name="Mechanism">
/// <c>ops</c>, <c>staticKey</c>, <c>multiBranch</c>, <c>staticCall</c>, <c>variant</c> or <c>alternative</c>.
/// </param>
/// <param name="Name">Slot, key, branch and way, backend or feature.</param>
/// <param name="Length">In bytes.</param>
/// <param name="Clobbers">Registers that a patch may destroy; of ops.</param>
/// <param name="Target">Where a branch or call leads, or where other code for the region is.</param>
/// <param name="Old">The bytes that are there.</param>
/// <param name="Code">The bytes of the variant or replacement, where it is.</param>
internal sealed record ObjectSite(
    string Address, string Section, string Offset, string Mechanism, string Name, int Length, string? Clobbers, string? Target, string Old,
    string? Code);

/// <summary>The sites of an object file or program for scripts.</summary>
internal sealed record ObjectSitesDocument(
    string Image, int Bitness, bool Linked, int Total, IReadOnlyList<ObjectSite> Sites, IReadOnlyList<JsonPart> Diagnostics)
    : ToolDocument("pvpatch-object-sites");

/// <summary>Lists the sites of an object file or program: those it recorded, or those that its relocations tell of.</summary>
internal sealed class ObjectSites
{
    private readonly ObjectFile _file;
    private readonly List<(VirtualAddress Address, (VirtualAddress Address, int Length) Code, ObjectSite Site)> _sites = [];

    private ObjectSites(ObjectFile file) => _file = file;

    /// <summary>The sites in order of address.</summary>
    public IReadOnlyList<ObjectSite> Sites => [.. _sites.OrderBy(static s => s.Address).Select(static s => s.Site)];

    /// <summary>Sites that were recorded.</summary>
    public static ObjectSites Of(ObjectFile file, SiteRecords records)
    {
        var sites = new ObjectSites(file);
        foreach (PatchSite site in records.Sites)
        {
            sites.Add(site, string.Create(CultureInfo.InvariantCulture, $"{site.Slot}"), records.SlotAddresses(site.Slot + 1)[site.Slot]);
        }

        foreach (StaticKeyRecord key in records.StaticKeys)
        {
            sites.Add(key.Address, key.Length, "staticKey", NameOf(key.Key, key.KeyAddress), key.Target);
        }

        foreach (MultiBranchRecord branch in records.MultiBranches)
        {
            for (int way = 0; way < branch.Labels.Count; way++)
            {
                string name = string.Create(CultureInfo.InvariantCulture, $"{NameOf(branch.Branch, branch.KeyAddress)}.{way}");
                sites.Add(branch.Address, branch.Length, "multiBranch", name, branch.Labels[way]);
            }
        }

        foreach (StaticCallRecord call in records.StaticCalls)
        {
            sites.Add(call.Address, call.Length, "staticCall", NameOf(call.Key, call.KeyAddress), call.Target);
        }

        foreach (ReplacementRecord variant in records.Variants)
        {
            sites.Add(variant, "variant", variant.Backend!);
        }

        foreach (ReplacementRecord other in records.Alternatives)
        {
            sites.Add(
                other, "alternative", string.Create(CultureInfo.InvariantCulture, $"{(other.IsForAbsence ? "not " : "")}{other.Feature}"));
        }

        return sites;
    }

    /// <summary>Sites that relocations tell of.</summary>
    public static ObjectSites Of(ObjectFile file, RelocatedSites found, OpsLayout layout)
    {
        var sites = new ObjectSites(file);
        foreach (PatchSite site in found.Sites)
        {
            sites.Add(site, layout[site.Slot].Name, VirtualAddress.Zero);
        }

        return sites;
    }

    /// <summary>The sites as a table, one to a line.</summary>
    public void Write(TextOutput output)
    {
        int nameWidth = Math.Max(6, _sites.Select(static s => s.Site.Name.Length).DefaultIfEmpty().Max() + 2);
        int placeWidth = Math.Max(
            8, _sites.Select(static s => s.Site.Section.Length + s.Site.Offset.Length + 1).DefaultIfEmpty().Max() + 2);
        var disassembler = new Disassembler(_file.Bitness, static _ => null);
        output.Column("place", placeWidth, Ink.Faint).Column("mechanism", 13, Ink.Faint).Column("name", nameWidth, Ink.Faint)
            .Column("bytes", 6, Ink.Faint).Line("code", Ink.Faint);
        foreach ((_, (VirtualAddress address, int length), ObjectSite site) in _sites.OrderBy(static s => s.Address))
        {
            _file.Code.TryGetBytes(address, length, out Span<byte> code);
            output.Column($"{site.Section}+{site.Offset}", placeWidth).Column(site.Mechanism, 13).Column(site.Name, nameWidth)
                .Column(string.Create(CultureInfo.InvariantCulture, $"{site.Length,4}"), 6).Line(disassembler.Line(code, address));
        }

        output.Line(string.Create(CultureInfo.InvariantCulture, $"{_sites.Count} sites"), Ink.Strong);
    }

    private static string NameOf(string? name, VirtualAddress? key) => name ?? key!.Value.ToString();

    private void Add(PatchSite site, string slot, VirtualAddress target) =>
        Add(site.Address, site.Budget, "ops", slot, target.IsZero ? null : target, site.Clobbers.ToString(_file.Bitness));

    private void Add(ReplacementRecord piece, string mechanism, string name) =>
        Add(piece.Address, piece.Length, mechanism, name, piece.Code, piece: (piece.Code, piece.CodeLength));

    private void Add(
        VirtualAddress address, int length, string mechanism, string name, VirtualAddress? target, string? clobbers = null,
        (VirtualAddress Address, int Length)? piece = null)
    {
        CodeSegment section = _file.Code.Find(address, length)!;
        _sites.Add((address, piece ?? (address, length), new ObjectSite(
            JsonOutput.Hex(address), section.Name, string.Create(CultureInfo.InvariantCulture, $"0x{address - section.Address:x}"),
            mechanism, name, length, clobbers, target is VirtualAddress known ? JsonOutput.Hex(known) : null, BytesAt(address, length),
            piece is { } code ? BytesAt(code.Address, code.Length) : null)));
    }

    private string BytesAt(VirtualAddress address, int length) => HexBytes.Format(_file.Code.GetBytes(address, length));
}
