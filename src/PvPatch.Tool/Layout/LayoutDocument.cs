using PvPatch.Linux;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Tool.Info;

namespace PvPatch.Tool.Layout;

/// <summary>Output of <c>layout</c> as JSON.</summary>
internal sealed record LayoutDocument() : ToolDocument("pvpatch-layout")
{
    public required string Image { get; init; }

    public string? Kernel { get; init; }

    public required int Bitness { get; init; }

    public required string Layout { get; init; }

    public required string LayoutFrom { get; init; }

    /// <summary>Other known orders that the image proves as well.</summary>
    public required IReadOnlyList<string> Alike { get; init; }

    public required IReadOnlyList<LayoutSlot> Slots { get; init; }

    public required IReadOnlyList<JsonPart> Diagnostics { get; init; }

    public static LayoutDocument Of(KernelInput input, KernelImage image, KernelOptions options) => new()
    {
        Image = input.Path,
        Kernel = VersionBanner.Find(input.File.Image.Span),
        Bitness = image.Bitness,
        Layout = image.Layout.Name,
        LayoutFrom = ImageSources.OfLayout(image, options),
        Alike = image.LayoutsAlike,
        Slots = [.. image.Layout.Slots.Select(s => new LayoutSlot(s.Name, s.Index, JsonOutput.Name(s.Kind), IsCalleeSave(s),
            image.SlotWords[s.Index].IsZero ? null : JsonOutput.Hex(image.SlotWords[s.Index])))],
        Diagnostics = JsonPart.Of(image.Warnings),
    };

    public static bool IsCalleeSave(OpSlot slot) => slot.Convention == CallConvention.CalleeSave;
}

internal sealed record LayoutSlot(string Slot, int Type, string Kind, bool CalleeSave, string? Word);
