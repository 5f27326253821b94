using System.CommandLine;
using PvPatch.Linux;
using PvPatch.Plans;

namespace PvPatch.Tool.Diff;

/// <summary><c>pvpatch diff</c>: compares two plans.</summary>
internal sealed class DiffCommand : ToolCommand
{
    private readonly Argument<string> _first = new(
        "A")
    { Description = "A stored plan (patch --save-plan, plan --json); or a kernel, with --backend and --against" };

    private readonly Argument<string?> _second = new("B") { Description = "Another stored plan", Arity = ArgumentArity.ZeroOrOne };

    private readonly Option<string?> _backend = new("--backend", "-b") { Description = "Of a kernel: one backend", HelpName = "NAME" };

    private readonly Option<string?> _against = new("--against")
    {
        Description = "Of a kernel: the backend to compare it with",
        HelpName = "NAME",
    };

    private readonly Option<string?> _slot = SlotFilter.Option();

    private readonly MachineOptions _machine;

    private readonly ImageOptions _imageOptions;

    public DiffCommand()
        : base(
            "diff",
            "Compare two plans site by site: two stored ones, or two backends of one kernel.",
            "diff vmlinuz --backend native --against xen",
            "diff vmlinuz --backend native --against kvm --cpus 2 --slot 'lock.*'",
            "diff native.json kvm.json --json")
    {
        Definition.Arguments.Add(_first);
        Definition.Arguments.Add(_second);
        Definition.Options.Add(_backend);
        Definition.Options.Add(_against);
        Definition.Options.Add(_slot);
        _machine = new MachineOptions(Definition);
        _imageOptions = new ImageOptions(Definition);
        Definition.Validators.Add(result =>
        {
            bool isOfPlans = result.GetResult(_second) is { Tokens.Count: > 0 };
            bool hasOne = result.GetResult(_backend) is not null;
            bool hasOther = result.GetResult(_against) is not null;
            if (isOfPlans ? hasOne || hasOther : !hasOne || !hasOther)
            {
                result.AddError("Either two stored plans are compared, or two backends of one kernel by --backend and --against");
            }

            if (result.GetResult(_slot) is not null && result.GetValue(Json))
            {
                result.AddError("--slot chooses what is shown as text; the document of --json has every difference");
            }
        });
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        string first = arguments.GetRequiredValue(_first);
        string? second = arguments.GetValue(_second);
        PlanDiff diff = second is not null
            ? PlanDiff.Compare(PlanFile.Read(first), PlanFile.Read(second)) : CompareBackends(arguments, run, first);
        SlotFilter.Check(arguments.GetValue(_slot), [diff.First, diff.Second]);
        if (run.IsJson)
        {
            run.WriteJson(diff.WriteTo);
        }
        else
        {
            PlanDiffText.Write(diff, arguments.GetValue(_slot), run.Out);
        }

        return diff.AreEqual ? ExitCode.Success : ExitCode.Different;
    }

    private PlanDiff CompareBackends(ParseResult arguments, ToolRun run, string path)
    {
        MachineSettings settings = _machine.Read(arguments);
        KernelImage image = KernelInput.Read(path, run).Open(arguments, _imageOptions);
        PatchPlan Plan(Option<string?> backend) => KernelPlan.Make(image, settings.Machine(image, arguments.GetValue(backend)!), path);
        return PlanDiff.Compare(Plan(_backend), Plan(_against));
    }
}
