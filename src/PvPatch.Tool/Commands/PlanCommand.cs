using System.CommandLine;
using PvPatch.Linux.Kernel;
using PvPatch.Plans;
using PvPatch.Tool.Kernels;

namespace PvPatch.Tool.Commands;

/// <summary><c>pvpatch plan</c>: what would be done, without doing it.</summary>
internal sealed class PlanCommand : ToolCommand
{
    private readonly Argument<string> _image = KernelInput.Argument();

    private readonly Option<string> _backend = KernelPlan.RequiredBackend();

    public PlanCommand()
        : base(
            "plan",
            "Decide what becomes of every site and sum it up by slot. Writes nothing; the JSON can be given to revert.",
            "plan vmlinuz --backend native",
            "plan vmlinuz --backend native --json > native.json")
    {
        Definition.Arguments.Add(_image);
        Definition.Options.Add(_backend);
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        string path = arguments.GetRequiredValue(_image);
        KernelImage image = KernelInput.Read(path, run).Open();
        PatchPlan plan = KernelPlan.Make(image, arguments.GetRequiredValue(_backend), path);
        if (run.IsJson)
        {
            run.WriteJson(json => PlanJson.Write(plan, json));
        }
        else
        {
            PlanText.Write(image, plan, run.Out);
        }

        run.Warn(plan.Diagnostics);
        return ExitCode.Success;
    }
}
