using System.CommandLine;
using PvPatch.Linux;

namespace PvPatch.Tool.Info;

/// <summary><c>pvpatch info</c>: kind of a kernel file, its tables, and the number of sites of each slot.</summary>
internal sealed class InfoCommand : ToolCommand
{
    private readonly Argument<string> _image = KernelInput.Argument();

    private readonly ImageOptions _imageOptions;

    public InfoCommand()
        : base(
            "info",
            "Say what a kernel is: version, era, tables, sites of each slot. Also tells what kernels have that cannot be planned.",
            "info vmlinuz-6.1.0-18-amd64",
            "info vmlinux --json")
    {
        Definition.Arguments.Add(_image);
        _imageOptions = new ImageOptions(Definition);
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        KernelInput input = KernelInput.Read(arguments.GetRequiredValue(_image), run);
        KernelOptions options = _imageOptions.Read(arguments, input.Elf);
        KernelImage.TryOpen(input.Elf, options, out KernelImage? image, out PatchDiagnostic? error);
        error = error is null ? null : error with { Source = input.Path };
        if (run.IsJson)
        {
            run.WriteJson(InfoDocument.Of(input, image, options, error));
        }
        else
        {
            InfoText.Write(input, image, options, run.Out);
            run.Out.Flush();
        }

        run.Warn(input.Elf.Warnings);
        return error is null ? ExitCode.Success : throw new ToolFailure(error);
    }
}
