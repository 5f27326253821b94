using System.CommandLine;
using PvPatch.Linux.Kernel;
using PvPatch.Plans;
using PvPatch.Tool.Kernels;

namespace PvPatch.Tool.Commands;

/// <summary><c>pvpatch sites</c>: every site as it is in the image, and what is done there.</summary>
internal sealed class SitesCommand : ToolCommand
{
    private readonly Argument<string> _image = KernelInput.Argument();

    private readonly Option<string?> _slot = SlotFilter.Option();

    private readonly Option<string> _backend = KernelPlan.Backend();

    public SitesCommand()
        : base(
            "sites",
            "List a kernel's sites: address, section, slot, length, the code that is there, and what becomes of it.",
            "sites vmlinuz --slot 'irq.*'",
            "sites vmlinux --slot set_pte --json")
    {
        Definition.Arguments.Add(_image);
        Definition.Options.Add(_slot);
        Definition.Options.Add(_backend);
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        string path = arguments.GetRequiredValue(_image);
        KernelImage image = KernelInput.Read(path, run).Open();
        bool[] chosen = SlotFilter.Choose(image.Layout, arguments.GetValue(_slot));
        string backend = arguments.GetValue(_backend)!;

        // The sites are there to be looked at even where they cannot be planned; then without what becomes of them.
        PatchPlan? plan = KernelPlan.TryMake(image, backend, path, out IReadOnlyList<PatchDiagnostic> diagnostics);
        if (plan is null && ToolFailure.ExitCodeOf(diagnostics[0].Code) == ExitCode.Usage)
        {
            throw new ToolFailure(diagnostics);
        }

        if (run.IsJson)
        {
            run.WriteJson(json => SiteListJson.Write(image, plan, chosen, path, diagnostics, json));
        }
        else
        {
            SiteListText.Write(image, plan, chosen, run.Out);
        }

        run.Warn(diagnostics);
        return ExitCode.Success;
    }
}
