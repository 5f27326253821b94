using System.Globalization;
using PvPatch.Linux;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;

namespace PvPatch.Tool.Info;

/// <summary>Output of <c>info</c> as text.</summary>
internal static class InfoText
{
    private static readonly CultureInfo s_culture = CultureInfo.InvariantCulture;

    public static void Write(KernelInput input, KernelImage? image, KernelOptions options, TextOutput output)
    {
        output.Line(input.Path, Ink.Strong);
        Field(output, "file", DescribeFile(input.File));
        Field(output, "kernel", VersionBanner.Find(input.File.Image.Span) ?? "it does not say");
        ElfImage elf = input.Elf;
        Field(output, "ELF",
            string.Create(s_culture,
            $"{elf.Bitness}-bit x86, {elf.Type.ToString().ToLowerInvariant()}, {elf.Sections.Count} sections, "
            + $"{elf.EndOfFileContent:n0} bytes"));
        foreach (string name in ImageSources.SectionsOfInterest)
        {
            if (elf.TryGetSection(name, out ElfSection? section))
            {
                Field(output, name, DescribeSection(section));
            }
            else if (!ImageSources.IsElsewhere(name))
            {
                Field(output, name, "none");
            }
        }

        if (image is not null)
        {
            WriteImage(image, options, output);
        }
    }

    private static void WriteImage(KernelImage image, KernelOptions options, TextOutput output)
    {
        Field(output, "era", $"{image.Era.Name}, by {ImageSources.OfEra(image, options)}");
        Field(output, "rules",
            image.Era.Rules.Name
            + (image.Alternatives is null ? "" : ", alternatives laid over")
            + (image.Era.ChoosesNopsByCpu ? ", nops by CPU" : ""));
        Field(output, "ops table", string.Create(
            s_culture, $"at {image.OpsTable}, {image.Layout.Count} slots in {image.Layout.Tables.Count} tables ({image.Layout.Name})"));
        Field(output, "order of slots", $"from {ImageSources.OfLayout(image, options)}");
        string source = image.Era.Source == SiteSource.ParaInstructions ? ".parainstructions" : "direct calls in .altinstructions";
        Field(output, "sites", string.Create(s_culture, $"{image.Sites.Count}, from {source}"));
        Field(output, "symbols",
            image.Symbols is null ? "none" : string.Create(s_culture, $"{image.Symbols.Count:n0}, from {ImageSources.OfSymbols(image)}"));
        Field(output, "backends", string.Join(", ", image.BackendNames));
        foreach (InfoMechanism mechanism in InfoMechanism.Of(image)?.Where(static m => m.Sites > 0) ?? [])
        {
            Field(output, mechanism.Name, string.Create(
                s_culture, $"{mechanism.Sites:n0} {(mechanism.Sites == 1 ? "place" : "places")} that may be rewritten at boot"));
        }

        output.Line();
        output.Write("  ").Column("slot", 34, Ink.Faint).Column("type", 6, Ink.Faint).Column("sites", 7, Ink.Faint)
            .Column("bytes", 7, Ink.Faint).Line("native function", Ink.Faint);
        var names = new KernelNames(image);
        foreach (SlotUse use in SlotUse.Of(image))
        {
            string lengths = use.Shortest == use.Longest ? $"{use.Shortest}" : $"{use.Shortest}-{use.Longest}";
            output.Write("  ").Column(use.Slot.Name, 34, use.Sites == 0 ? Ink.Faint : Ink.Plain)
                .Column(string.Create(s_culture, $"{use.Slot.Index,4}"), 6)
                .Column(use.Sites == 0 ? "   -" : string.Create(s_culture, $"{use.Sites,5}"), 7)
                .Column(use.Sites == 0 ? "" : lengths, 7)
                .Line(image.Native[use.Slot.Index].Target is VirtualAddress native ? names.Describe(native) : "none", Ink.Faint);
        }
    }

    private static string DescribeFile(LoadedKernelFile file) => file.Kind switch
    {
        KernelFileKind.BzImage =>
            string.Create(s_culture, $"bzImage of {file.FileSize:n0} bytes, with {file.Compression.ToString().ToLowerInvariant()}"),
        KernelFileKind.CompressedElf =>
            string.Create(s_culture, $"ELF compressed with {file.Compression.ToString().ToLowerInvariant()}, {file.FileSize:n0} bytes"),
        _ => string.Create(s_culture, $"ELF, {file.FileSize:n0} bytes"),
    };

    private static string DescribeSection(ElfSection section) =>
        string.Create(s_culture, $"{section.Size:n0} bytes{(section.IsAllocated ? $" at {section.Address}" : "")}");

    private static void Field(TextOutput output, string name, string value) => output.Column($"  {name}", 21, Ink.Faint).Line(value);
}
