using System.CommandLine;
using PvPatch.Linux;
using PvPatch.Plans;

namespace PvPatch.Tool.Sites;

/// <summary><c>pvpatch sites</c>: every site of the image, and the decision of a plan for it.</summary>
internal sealed class SitesCommand : ToolCommand
{
    private readonly Argument<string> _image = KernelInput.Argument();

    private readonly ImageOptions _imageOptions;

    private readonly MachineOptions _machine;

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
        _machine = new MachineOptions(Definition);
        _imageOptions = new ImageOptions(Definition);
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        string path = arguments.GetRequiredValue(_image);
        MachineSettings settings = _machine.Read(arguments);
        KernelImage image = KernelInput.Read(path, run).Open(arguments, _imageOptions);
        bool[] chosen = SlotFilter.Choose(image.Layout, arguments.GetValue(_slot));
        BootMachine machine = settings.Machine(image, arguments.GetValue(_backend)!);

        // The sites are there to be looked at even where they cannot be planned; then without what becomes of them.
        PatchPlan? plan = KernelPlan.TryMake(image, machine, path, out IReadOnlyList<PatchDiagnostic> diagnostics);
        if (plan is null && ToolFailure.ExitCodeOf(diagnostics[0].Code) == ExitCode.Usage)
        {
            throw new ToolFailure(diagnostics);
        }

        if (run.IsJson)
        {
            run.WriteJson(SitesDocument.Of(image, plan, chosen, path, diagnostics));
        }
        else
        {
            SitesText.Write(image, plan, chosen, run.Out);
        }

        if (plan is null)
        {
            run.Out.Flush();
            throw new ToolFailure(diagnostics);
        }

        run.Warn(diagnostics);
        return ExitCode.Success;
    }
}
