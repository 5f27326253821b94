using System.CommandLine;
using PvPatch.Linux;
using PvPatch.Linux.Text;
using PvPatch.Plans;

namespace PvPatch.Tool.Patch;

/// <summary><c>pvpatch patch</c>: writes a kernel file that boots, its sites as they stand in memory after a boot.</summary>
internal sealed class PatchCommand : ToolCommand
{
    private readonly Argument<string> _image = KernelInput.Argument();

    private readonly ImageOptions _imageOptions;

    private readonly Option<bool> _trust = KernelPlan.Trust();

    private readonly MachineOptions _machine;

    private readonly Option<string> _backend = KernelPlan.RequiredBackend();

    private readonly Option<string> _output = OutputPath.Option("The patched vmlinux, an ELF file; replaced if it exists");

    private readonly Option<string?> _savePlan = new("--save-plan")
    {
        Description = "Also write the plan, for revert --plan",
        HelpName = "FILE",
    };

    private readonly Option<bool> _exact = new("--exact")
    {
        Description = "Every site as in memory, even where the file then does not boot",
    };

    private readonly Option<bool> _force = new("--force") { Description = "Allow an output that replaces the input" };

    public PatchCommand()
        : base(
            "patch",
            "Write a kernel file that boots, with its sites as they are in memory after a boot. A file appears whole or not at all.",
            "patch vmlinuz --backend native -o vmlinux.native --save-plan native.json",
            "patch vmlinux --backend native -o vmlinux.native --json")
    {
        Definition.Arguments.Add(_image);
        Definition.Options.Add(_backend);
        _machine = new MachineOptions(Definition);
        Definition.Options.Add(_trust);
        _imageOptions = new ImageOptions(Definition);
        Definition.Options.Add(_output);
        Definition.Options.Add(_savePlan);
        Definition.Options.Add(_exact);
        Definition.Options.Add(_force);
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        string path = arguments.GetRequiredValue(_image);
        string outputPath = arguments.GetRequiredValue(_output);
        string? planPath = arguments.GetValue(_savePlan);
        string?[] read = [.. _imageOptions.Files(arguments), .. _machine.Files(arguments)];
        string output = OutputPath.Resolve(outputPath, [planPath, arguments.GetValue(_force) ? null : path, .. read]);
        string? planOutput = planPath is null ? null : OutputPath.Resolve(planPath, [path, .. read]);

        MachineSettings settings = _machine.Read(arguments);
        KernelImage image = KernelInput.Read(path, run).Open(arguments, _imageOptions);
        BootMachine machine = settings.Machine(image, arguments.GetRequiredValue(_backend));
        KernelPlan.CheckSlots(image, machine, arguments.GetValue(_trust), path, run);
        PatchPlan plan = KernelPlan.Make(image, machine, path);
        if (!arguments.GetValue(_exact))
        {
            plan = BootablePlan.Create(image, machine, plan);
        }

        if (!plan.TryApply(BootablePlan.ImageOf(image.Elf), out ApplyResult applied))
        {
            throw new ToolFailure(applied.Diagnostics);
        }

        var files = new OutputFiles(run, path);
        if (planOutput is not null)
        {
            files.Add(plan, planOutput, planPath!); // first: an image without its plan is the worse of the two to be left with
        }

        files.Add(image.Elf, output, outputPath).Write();

        var report = new PatchReport(path, outputPath, planPath, image.Elf.EndOfFileContent, plan, applied);
        if (run.IsJson)
        {
            run.WriteJson(report.ToDocument());
        }
        else
        {
            report.WriteText(run.Out);
        }

        run.Warn(plan.Diagnostics);
        return ExitCode.Success;
    }
}
