using System.CommandLine;
using PvPatch.Linux;
using PvPatch.Linux.Objects;
using PvPatch.Plans;
using PvPatch.Records;

namespace PvPatch.Tool.Sites;

/// <summary><c>pvpatch sites</c>: every site of the image, and the decision of a plan for it.</summary>
internal sealed class SitesCommand : ToolCommand
{
    private readonly Argument<string> _image = KernelInput.Argument();

    private readonly ImageOptions _imageOptions;

    private readonly MachineOptions _machine;

    private readonly ObjectSitesOptions _object;

    private readonly Option<string?> _slot = SlotFilter.Option();

    private readonly Option<string> _backend = KernelPlan.Backend();

    public SitesCommand()
        : base(
            "sites",
            "List a kernel's sites: address, section, slot, length, the code that is there, and what becomes of it; or those of a program.",
            "sites vmlinuz --slot 'irq.*'",
            "sites vmlinux --slot set_pte --json",
            "sites --records firmware.elf",
            "sites --relocations guest.o --table pv_ops --function native_cli=pv_ops.3")
    {
        Definition.Arguments.Add(_image);
        Definition.Options.Add(_slot);
        Definition.Options.Add(_backend);
        _machine = new MachineOptions(Definition);
        _imageOptions = new ImageOptions(Definition);
        _object = new ObjectSitesOptions(Definition);
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        string path = arguments.GetRequiredValue(_image);
        if (_object.WantsRecords(arguments) || _object.WantsRelocations(arguments))
        {
            ListObject(arguments, run, path);
            return ExitCode.Success;
        }

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

    private void ListObject(ParseResult arguments, ToolRun run, string path)
    {
        if (path.Length == 0)
        {
            throw new ToolFailure(PatchDiagnostic.Error(ToolDiagnosticCodes.Usage, "the name of a file is empty"));
        }

        if (!ObjectFile.TryOpen(path, out ObjectFile? file, out PatchDiagnostic? error))
        {
            throw new ToolFailure(error);
        }

        IReadOnlyList<PatchDiagnostic> diagnostics;
        ObjectSites sites;
        if (_object.WantsRecords(arguments))
        {
            sites = file.TryReadRecords(out SiteRecords? records, out diagnostics)
                ? ObjectSites.Of(file, records) : throw Failure(diagnostics, path);
        }
        else
        {
            SiteNames names = _object.Names(arguments);
            sites = file.TryFindSites(names, out RelocatedSites? found, out diagnostics)
                ? ObjectSites.Of(file, found, names.Layout) : throw Failure(diagnostics, path);
        }

        if (run.IsJson)
        {
            run.WriteJson(new ObjectSitesDocument(
                path, file.Bitness, file.IsLinked, sites.Sites.Count, sites.Sites, JsonPart.Of(diagnostics)));
        }
        else
        {
            sites.Write(run.Out);
        }

        run.Warn(diagnostics);
    }

    private static ToolFailure Failure(IReadOnlyList<PatchDiagnostic> diagnostics, string path) =>
        new([.. diagnostics.Select(d => d with { Source = path })]);
}
