using System.CommandLine;
using PvPatch.Linux;
using PvPatch.Linux.Verify;
using PvPatch.Plans;

namespace PvPatch.Tool.Allowed;

/// <summary><c>pvpatch allowed</c>: the allowed bytes of each site.</summary>
internal sealed class AllowedCommand : ToolCommand
{
    private readonly Argument<string> _image = KernelInput.Argument();

    private readonly Option<string[]> _backends = KernelPlan.Backends(
        "Only what this backend puts there; may be given again. All backends where it is not given");

    private readonly Option<string?> _output = new("--output", "-o")
    {
        Description = "Write to this file and say how much; else the list goes to standard output",
        HelpName = "FILE",
    };

    private readonly MachineOptions _machine;

    private readonly ImageOptions _imageOptions;

    public AllowedCommand()
        : base(
            "allowed",
            "List for each site the bytes that may legally stand there, as JSON: for checkers that take sums of kernel code.",
            "allowed vmlinuz -o allowed.json",
            "allowed vmlinuz --backend native --backend kvm --cpus 4 -o allowed.json")
    {
        Definition.Arguments.Add(_image);
        Definition.Options.Add(_backends);
        Definition.Options.Add(_output);
        _machine = new MachineOptions(Definition);
        _imageOptions = new ImageOptions(Definition);
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        string path = arguments.GetRequiredValue(_image);
        string? outputPath = arguments.GetValue(_output);
        string? output = outputPath is null
            ? null : OutputPath.Resolve(outputPath, [path, .. _imageOptions.Files(arguments), .. _machine.Files(arguments)]);
        MachineSettings settings = _machine.Read(arguments);
        KernelImage image = KernelInput.Read(path, run).Open(arguments, _imageOptions);
        string[] backends = arguments.GetValue(_backends) ?? [];
        BootCandidates candidates = Candidates.Of(image, settings, backends.Length > 0 ? backends : image.BackendNames, path);
        if (output is null)
        {
            run.WriteJson(json => AllowedSites.Write(candidates.Plans, json));
            run.Warn(candidates.Diagnostics, hasNoPlace: true);
            return ExitCode.Success;
        }

        AllowedReport report = AllowedReport.Save(candidates, path, output, outputPath!, run);
        if (run.IsJson)
        {
            run.WriteJson(report.ToDocument());
        }
        else
        {
            report.WriteText(run.Out);
            run.Warn(report.Diagnostics);
        }

        return ExitCode.Success;
    }
}
