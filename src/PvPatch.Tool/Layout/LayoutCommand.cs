using System.CommandLine;
using System.Globalization;
using PvPatch.Linux;
using PvPatch.Mechanisms;
using PvPatch.Tool.Info;

namespace PvPatch.Tool.Layout;

/// <summary><c>pvpatch layout</c>: the order of the slots that is used for a kernel, in the form that <c>--layout</c> reads.</summary>
internal sealed class LayoutCommand : ToolCommand
{
    private readonly Argument<string> _image = KernelInput.Argument();

    private readonly ImageOptions _imageOptions;

    public LayoutCommand()
        : base(
            "layout",
            "Print the order of a kernel's slots, and how it is known. The text is what --layout reads.",
            "layout vmlinuz-6.1.0-18-amd64 > 6.1.layout",
            "layout vmlinux --layout 5.4-x86-64-5level --json")
    {
        Definition.Arguments.Add(_image);
        _imageOptions = new ImageOptions(Definition);
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        KernelInput input = KernelInput.Read(arguments.GetRequiredValue(_image), run);
        KernelOptions options = _imageOptions.Read(arguments, input.Elf);
        if (!KernelImage.TryOpen(input.Elf, options, out KernelImage? image, out PatchDiagnostic? error))
        {
            throw new ToolFailure(error with { Source = input.Path });
        }

        if (run.IsJson)
        {
            run.WriteJson(LayoutDocument.Of(input, image, options));
        }
        else
        {
            WriteText(input, image, options, run.Out);
        }

        run.Warn(image.Warnings);
        return ExitCode.Success;
    }

    private static void WriteText(KernelInput input, KernelImage image, KernelOptions options, TextOutput output)
    {
        output.Line($"# {VersionBanner.Find(input.File.Image.Span) ?? input.Path}", Ink.Faint);
        output.Line($"# {image.Layout.Name}, from {ImageSources.OfLayout(image, options)}", Ink.Faint);
        foreach (string alike in image.LayoutsAlike)
        {
            output.Line($"# proved as well, and the same for all sites: {alike}", Ink.Faint);
        }

        output.Line(string.Create(CultureInfo.InvariantCulture, $"bits {image.Bitness}"));
        foreach (OpSlot slot in image.Layout.Slots)
        {
            string kind = slot.Kind == SlotKind.Call ? "" : $" {JsonOutput.Name(slot.Kind)}";
            string star = LayoutDocument.IsCalleeSave(slot) ? "*" : "";
            output.Line(string.Create(CultureInfo.InvariantCulture, $"{slot.Index} {slot.Name}{star}{kind}"));
        }
    }
}
