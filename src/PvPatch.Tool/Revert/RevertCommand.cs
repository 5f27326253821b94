using System.CommandLine;
using PvPatch.Images;
using PvPatch.Linux;
using PvPatch.Linux.Text;
using PvPatch.Plans;

namespace PvPatch.Tool.Revert;

/// <summary><c>pvpatch revert</c>: restores the original bytes of a patched kernel.</summary>
internal sealed class RevertCommand : ToolCommand
{
    private readonly Argument<string> _image = KernelInput.Argument("The patched vmlinux");

    private readonly Option<string?> _plan = new("--plan")
    {
        Description = "The plan it was patched with: patch --save-plan or plan --json",
        HelpName = "FILE",
    };

    private readonly Option<string?> _original = new("--original")
    {
        Description = "The kernel it was made from, where no plan was kept",
        HelpName = "IMAGE",
    };

    private readonly ImageOptions _imageOptions;

    private readonly MachineOptions _machine;

    private readonly Option<string> _output = OutputPath.Option("The kernel with its original bytes; replaced if it exists");

    public RevertCommand()
        : base(
            "revert",
            "Give a patched kernel its original bytes back. Checks every site first and writes nothing if one holds unknown bytes.",
            "revert vmlinux.native --plan native.json -o vmlinux",
            "revert vmlinux.native --original vmlinuz -o vmlinux")
    {
        Definition.Arguments.Add(_image);
        Definition.Options.Add(_plan);
        Definition.Options.Add(_original);
        Definition.Options.Add(_output);
        _machine = new MachineOptions(Definition);
        _imageOptions = new ImageOptions(Definition);
        Definition.Validators.Add(result =>
        {
            if (result.GetResult(_plan) is null == result.GetResult(_original) is null)
            {
                result.AddError("Either --plan or --original is needed, and not both");
            }
        });
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        string path = arguments.GetRequiredValue(_image);
        string outputPath = arguments.GetRequiredValue(_output);
        string? planPath = arguments.GetValue(_plan);
        string? originalPath = arguments.GetValue(_original);
        string output = OutputPath.Resolve(
            outputPath, [path, planPath, originalPath, .. _imageOptions.Files(arguments), .. _machine.Files(arguments)]);

        PatchPlan? plan = planPath is null ? null : PlanFile.Read(planPath);
        KernelInput input = KernelInput.Read(path, run);
        CodeImage code = input.Code();
        if (plan is null)
        {
            KernelImage original = KernelInput.Read(originalPath!, run).Open(arguments, _imageOptions);
            plan = OriginalKernel.PlanThatMade(code, original, _machine.Read(arguments), originalPath!);
        }

        if (!plan.TryRevert(code, out ApplyResult reverted))
        {
            throw new ToolFailure([.. reverted.Diagnostics.Select(d => d with { Source = d.Source ?? path })]);
        }

        if (planPath is not null)
        {
            Check(plan, planPath, input, _imageOptions.Read(arguments, input.Elf));
        }

        new OutputFiles(run, path).Add(input.Elf, output, outputPath).Write();
        var report = new RevertReport(path, outputPath, planPath ?? originalPath!, input.Elf.EndOfFileContent, plan, reverted);
        if (run.IsJson)
        {
            run.WriteJson(report.ToDocument());
        }
        else
        {
            report.WriteText(run.Out);
        }

        return ExitCode.Success;
    }

    /// <summary>
    /// Checks a stored plan against the image it was reverted in, in memory only. A plan file is untrusted input that says which bytes go
    /// where: the reverted image must be a kernel that was never patched, and the plan one of that kernel.
    /// </summary>
    /// <exception cref="ToolFailure">It is no plan of this image (PV7009).</exception>
    private static void Check(PatchPlan stored, string planPath, KernelInput reverted, KernelOptions options)
    {
        if (!KernelImage.TryOpen(reverted.Elf, options, out KernelImage? image, out PatchDiagnostic? error))
        {
            throw new ToolFailure(
                NotOfImage(planPath, "with its original bytes the image is no kernel whose sites can be found"),
                error with { Source = reverted.Path });
        }

        if (!BootablePlan.TryCheckStored(image, stored, out IReadOnlyList<PatchDiagnostic> diagnostics))
        {
            throw new ToolFailure(
                [NotOfImage(planPath, diagnostics[0].Message), .. diagnostics.Select(d => d with { Source = d.Source ?? planPath })]);
        }
    }

    private static PatchDiagnostic NotOfImage(string planPath, string why) =>
        PatchDiagnostic.Error(ToolDiagnosticCodes.NotAPlanOfImage, $"this is no plan of this image: {why}") with
        {
            Source = planPath,
            Help =
                "Nothing was written. Give the plan this image was patched with, and the options that told patch of the image; or the "
                + "original (--original).",
        };
}
