using System.Text.Json;
using PvPatch.Linux;
using PvPatch.Linux.Files;
using PvPatch.Tool.Output;

namespace PvPatch.Tool.Kernels;

/// <summary>What <c>info</c> says, for scripts.</summary>
internal static class InfoJson
{
    public static void Write(KernelInput input, KernelImage? image, KernelOptions options, PatchDiagnostic? error, Utf8JsonWriter json)
    {
        JsonOutput.Start(json, "pvpatch-info");
        json.WriteBoolean("supported", image is not null);
        WriteFile(input.Path, input.File, json);
        if (VersionBanner.Find(input.File.Image.Span) is string banner)
        {
            json.WriteString("kernel", banner);
        }

        WriteElf(input.Elf, json);
        if (image is not null)
        {
            WriteImage(image, options, json);
        }

        JsonOutput.WriteDiagnostics(json, error is null ? input.Elf.Warnings : [error, .. input.Elf.Warnings]);
        json.WriteEndObject();
    }

    private static void WriteFile(string path, LoadedKernelFile file, Utf8JsonWriter json)
    {
        json.WriteStartObject("file");
        json.WriteString("path", path);
        json.WriteString("kind", JsonNamingPolicy.CamelCase.ConvertName(file.Kind.ToString()));
        json.WriteString("compression", JsonNamingPolicy.CamelCase.ConvertName(file.Compression.ToString()));
        json.WriteNumber("size", file.FileSize);
        json.WriteEndObject();
    }

    private static void WriteElf(ElfImage elf, Utf8JsonWriter json)
    {
        json.WriteStartObject("elf");
        json.WriteNumber("bitness", elf.Bitness);
        json.WriteString("machine", elf.Machine.ToString());
        json.WriteNumber("size", elf.EndOfFileContent);
        json.WriteStartArray("sections");
        foreach (string name in KernelSections.OfInterest)
        {
            if (elf.TryGetSection(name, out ElfSection? section))
            {
                json.WriteStartObject();
                json.WriteString("name", name);
                json.WriteString("address", JsonOutput.Hex(section.Address));
                json.WriteNumber("fileOffset", section.FileOffset);
                json.WriteNumber("size", section.Size);
                json.WriteEndObject();
            }
        }

        json.WriteEndArray();
        json.WriteEndObject();
    }

    private static void WriteImage(KernelImage image, KernelOptions options, Utf8JsonWriter json)
    {
        json.WriteString("era", image.Era.Name);
        json.WriteString("eraFrom", ImageSources.OfEra(image, options));
        json.WriteString("rules", image.Era.Rules.Name);
        json.WriteBoolean("nopsByCpu", image.Era.ChoosesNopsByCpu);
        json.WriteString("layout", image.Layout.Name);
        json.WriteString("layoutFrom", ImageSources.OfLayout(image, options));
        json.WriteString("opsTable", JsonOutput.Hex(image.OpsTable));
        json.WriteString("siteSource", JsonNamingPolicy.CamelCase.ConvertName(image.Era.Source.ToString()));
        json.WriteNumber("sites", image.Sites.Count);
        json.WriteNumber("symbols", image.Symbols?.Count ?? 0);
        if (ImageSources.OfSymbols(image) is string symbols)
        {
            json.WriteString("symbolsFrom", symbols);
        }

        json.WriteStartArray("backends");
        foreach (string backend in image.BackendNames)
        {
            json.WriteStringValue(backend);
        }

        json.WriteEndArray();
        var names = new KernelNames(image);
        json.WriteStartArray("slots");
        foreach (SlotUse use in SlotUse.Of(image))
        {
            json.WriteStartObject();
            json.WriteString("slot", use.Slot.Name);
            json.WriteNumber("type", use.Slot.Index);
            json.WriteNumber("sites", use.Sites);
            if (image.Native[use.Slot.Index].Target is VirtualAddress native)
            {
                json.WriteString("native", JsonOutput.Hex(native));
                if (names.NameOf(native.Value) is string name)
                {
                    json.WriteString("nativeName", name);
                }
            }

            json.WriteEndObject();
        }

        json.WriteEndArray();
    }
}
