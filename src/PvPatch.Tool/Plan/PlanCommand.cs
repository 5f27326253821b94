using System.CommandLine;
using PvPatch.Linux;
using PvPatch.Plans;
using PvPatch.Tool.Allowed;

namespace PvPatch.Tool.Plan;

/// <summary><c>pvpatch plan</c>: the plan of a kernel or module; nothing is written.</summary>
internal sealed class PlanCommand : ToolCommand
{
    private readonly Argument<string> _image = KernelInput.Argument();

    private readonly ImageOptions _imageOptions;

    private readonly Option<bool> _trust = KernelPlan.Trust();

    private readonly MachineOptions _machine;

    private readonly Option<string?> _backend = new("--backend", "-b")
    {
        Description = "What the kernel shall stand ready for; info lists the names",
        HelpName = "NAME",
    };

    private readonly ModuleOptions _module;

    private readonly Option<string?> _allowed = new("--allowed")
    {
        Description = "Write what may stand at each site on any backend, or on the one given (see pvpatch allowed)",
        HelpName = "FILE"
    };

    public PlanCommand()
        : base(
            "plan",
            "Decide what becomes of every site and sum it up by slot. Writes nothing; the JSON can be given to revert.",
            "plan vmlinuz --backend native",
            "plan vmlinuz --backend native --json > native.json",
            "plan vmlinuz --backend native --module kvm.ko --at 0xffffffffa0000000")
    {
        Definition.Arguments.Add(_image);
        Definition.Options.Add(_backend);
        Definition.Options.Add(_allowed);
        Definition.Validators.Add(result =>
        {
            if (result.GetResult(_backend) is null && result.GetResult(_allowed) is null)
            {
                result.AddError("Option '--backend' is required, unless --allowed is given");
            }

            if (result.GetResult(_allowed) is not null && _module!.IsGiven(result))
            {
                result.AddError("--allowed lists the sites of the kernel, not those of a module: give either --allowed or --module");
            }
        });
        _module = new ModuleOptions(Definition);
        _machine = new MachineOptions(Definition);
        Definition.Options.Add(_trust);
        _imageOptions = new ImageOptions(Definition);
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        string path = arguments.GetRequiredValue(_image);
        string? allowedPath = arguments.GetValue(_allowed);
        string? output = allowedPath is null
            ? null : OutputPath.Resolve(allowedPath, [path, .. _imageOptions.Files(arguments), .. _machine.Files(arguments)]);
        MachineSettings settings = _machine.Read(arguments);
        KernelImage image = KernelInput.Read(path, run).Open(arguments, _imageOptions);
        string? backend = arguments.GetValue(_backend);
        if (backend is null)
        {
            return WriteAllowed(
                AllowedReport.Save(Candidates.Of(image, settings, image.BackendNames, path), path, output!, allowedPath!, run), run);
        }

        BootMachine machine = settings.Machine(image, backend);
        KernelPlan.CheckSlots(image, machine, arguments.GetValue(_trust), path, run);
        PatchPlan plan = _module.Plan(arguments, image, machine, run) ?? KernelPlan.Make(image, machine, path);
        AllowedReport? allowed = output is null
            ? null : AllowedReport.Save(Candidates.Of(image, settings, [backend], path), path, output, allowedPath!, run);
        if (run.IsJson)
        {
            run.WriteJson(json => PlanJson.Write(plan, json));
        }
        else
        {
            PlanText.Write(image, plan, run.Out);
            allowed?.WriteText(run.Out);
        }

        run.Warn(plan.Diagnostics);
        run.Warn(allowed?.Diagnostics ?? [], hasNoPlace: true);
        return ExitCode.Success;
    }

    private static ExitCode WriteAllowed(AllowedReport allowed, ToolRun run)
    {
        if (run.IsJson)
        {
            run.WriteJson(allowed.ToDocument());
        }
        else
        {
            allowed.WriteText(run.Out);
            run.Warn(allowed.Diagnostics);
        }

        return ExitCode.Success;
    }
}
