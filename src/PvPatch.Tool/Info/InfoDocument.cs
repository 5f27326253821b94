using PvPatch.Linux;
using PvPatch.Linux.BootText;
using PvPatch.Linux.Files;

namespace PvPatch.Tool.Info;

/// <summary>Output of <c>info</c> as JSON. Members from the era on are present for supported kernels only.</summary>
internal sealed record InfoDocument() : ToolDocument("pvpatch-info")
{
    public required bool Supported { get; init; }

    public required InfoFile File { get; init; }

    public string? Kernel { get; init; }

    public required InfoElf Elf { get; init; }

    public string? Era { get; init; }

    public string? EraFrom { get; init; }

    public string? Rules { get; init; }

    public bool? NopsByCpu { get; init; }

    public string? Layout { get; init; }

    public string? LayoutFrom { get; init; }

    public string? OpsTable { get; init; }

    public string? SiteSource { get; init; }

    public int? Sites { get; init; }

    public int? Symbols { get; init; }

    public string? SymbolsFrom { get; init; }

    public IReadOnlyList<string>? Backends { get; init; }

    public IReadOnlyList<InfoSlot>? Slots { get; init; }

    public IReadOnlyList<InfoMechanism>? Mechanisms { get; init; }

    public required IReadOnlyList<JsonPart> Diagnostics { get; init; }

    public static InfoDocument Of(KernelInput input, KernelImage? image, KernelOptions options, PatchDiagnostic? error)
    {
        LoadedKernelFile file = input.File;
        ElfImage elf = input.Elf;
        var document = new InfoDocument
        {
            Supported = image is not null,
            File = new InfoFile(input.Path, JsonOutput.Name(file.Kind), JsonOutput.Name(file.Compression), file.FileSize),
            Kernel = VersionBanner.Find(file.Image.Span),
            Elf = new InfoElf(elf.Bitness, elf.Machine.ToString(), elf.EndOfFileContent, [.. SectionsOf(elf)]),
            Diagnostics = JsonPart.Of(error is null ? elf.Warnings : [error, .. elf.Warnings]),
        };
        return image is null ? document : document with
        {
            Era = image.Era.Name,
            EraFrom = ImageSources.OfEra(image, options),
            Rules = image.Era.Rules.Name,
            NopsByCpu = image.Era.ChoosesNopsByCpu,
            Layout = image.Layout.Name,
            LayoutFrom = ImageSources.OfLayout(image, options),
            OpsTable = JsonOutput.Hex(image.OpsTable),
            SiteSource = JsonOutput.Name(image.Era.Source),
            Sites = image.Sites.Count,
            Symbols = image.Symbols?.Count ?? 0,
            SymbolsFrom = ImageSources.OfSymbols(image),
            Backends = image.BackendNames,
            Slots = [.. SlotsOf(image)],
            Mechanisms = InfoMechanism.Of(image),
        };
    }

    private static IEnumerable<InfoSection> SectionsOf(ElfImage elf)
    {
        foreach (string name in ImageSources.SectionsOfInterest)
        {
            if (elf.TryGetSection(name, out ElfSection? section))
            {
                yield return new InfoSection(name, JsonOutput.Hex(section.Address), section.FileOffset, section.Size);
            }
        }
    }

    private static IEnumerable<InfoSlot> SlotsOf(KernelImage image)
    {
        var names = new KernelNames(image);
        foreach (SlotUse use in SlotUse.Of(image))
        {
            VirtualAddress? native = image.Native[use.Slot.Index].Target;
            yield return new InfoSlot(use.Slot.Name, use.Slot.Index, use.Sites, JsonOutput.Hex(native),
                native is VirtualAddress there ? names.NameOf(there.Value) : null);
        }
    }
}

internal sealed record InfoFile(string Path, string Kind, string Compression, long Size);

internal sealed record InfoElf(int Bitness, string Machine, long Size, IReadOnlyList<InfoSection> Sections);

internal sealed record InfoSection(string Name, string Address, long FileOffset, ulong Size);

/// <summary>Something that rewrites the kernel's text when it boots.</summary>
internal sealed record InfoMechanism(string Name, int Sites)
{
    /// <summary>All of a kernel, in the order in which they are applied; none where they are not known.</summary>
    public static IReadOnlyList<InfoMechanism>? Of(KernelImage image) => !TextKernel.TryOf(image, out TextKernel? kernel, out _) ? null
        :
        [
            .. kernel.Rules.Order.Select(
                kind => new InfoMechanism(TextMechanisms.NameOf(kind), TextPredictor.Find(kind)?.Count(kernel) ?? 0)),
        ];
}

internal sealed record InfoSlot(string Slot, int Type, int Sites, string? Native, string? NativeName);
