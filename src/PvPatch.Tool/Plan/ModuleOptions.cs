using System.CommandLine;
using System.CommandLine.Parsing;
using PvPatch.Linux;
using PvPatch.Linux.Modules;
using PvPatch.Plans;

namespace PvPatch.Tool.Plan;

/// <summary>The options of a module loaded into the kernel: its file and its addresses.</summary>
internal sealed class ModuleOptions
{
    private static readonly KernelPlanner s_planner = new();

    private readonly Option<string?> _module = new("--module")
    {
        Description = "Plan this module (.ko, also .gz, .xz, .zst) instead of the kernel it is loaded into",
        HelpName = "FILE"
    };

    private readonly Option<string?> _at = new("--at")
    {
        Description = "Address of the module's .text: /sys/module/NAME/sections/.text, less the KASLR slide",
        HelpName = "ADDRESS"
    };

    public ModuleOptions(Command command)
    {
        command.Options.Add(_module);
        command.Options.Add(_at);
        command.Validators.Add(result =>
        {
            if (result.GetResult(_module) is null != result.GetResult(_at) is null)
            {
                result.AddError("--module and --at go together");
            }
        });
    }

    /// <summary>Whether a module is meant.</summary>
    public bool IsGiven(CommandResult command) => command.GetResult(_module) is not null;

    /// <summary>The plan for the module, where one is meant.</summary>
    /// <exception cref="ToolFailure">The file is no module of this kernel, or can't be placed or planned.</exception>
    public PatchPlan? Plan(ParseResult arguments, KernelImage kernel, BootMachine machine, ToolRun run)
    {
        if (arguments.GetValue(_module) is not string path)
        {
            return null;
        }

        if (!VirtualAddress.TryParse(arguments.GetValue(_at), out VirtualAddress text))
        {
            throw new ToolFailure(PatchDiagnostic.Error(ToolDiagnosticCodes.NoSiteAtAddress,
                "the value of --at is not an address") with
            { Found = arguments.GetValue(_at), Expected = "hexadecimal digits" });
        }

        if (!KernelModule.TryOpen(path, out KernelModule? module, out PatchDiagnostic? error, cancellationToken: run.Console.Cancellation)
            || !module.TryPlace(kernel, ModulePlacement.At(text), out PlacedModule? placed, out error))
        {
            throw new ToolFailure(error with { Source = error.Source ?? path });
        }

        run.Warn(placed.Warnings);
        return s_planner.TryPlan(placed, machine, out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics)
            ? plan
            : throw new ToolFailure([.. diagnostics.Select(d => d with { Source = d.Source ?? path })]);
    }
}
