using System.CommandLine;
using PvPatch.Linux;
using PvPatch.Linux.Audit;

namespace PvPatch.Tool.Audit;

/// <summary>
/// <c>pvpatch audit</c>: whether the code put at each site destroys a register that is read behind it, computed from the kernel's code.
/// </summary>
internal sealed class AuditCommand : ToolCommand
{
    private readonly Argument<string> _image = KernelInput.Argument();

    private readonly Option<string[]> _backends = KernelPlan.Backends(
        "Audit this backend; may be given again. Without it: all that the kernel has");

    private readonly MachineOptions _machine;

    private readonly ImageOptions _imageOptions;

    public AuditCommand()
        : base(
            "audit",
            "Compute what the code at every site destroys and what is live behind it, and say where the two meet. Writes nothing.",
            "audit vmlinuz",
            "audit vmlinuz --backend native --backend xen --json")
    {
        Definition.Arguments.Add(_image);
        Definition.Options.Add(_backends);
        _machine = new MachineOptions(Definition);
        _imageOptions = new ImageOptions(Definition);
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        string path = arguments.GetRequiredValue(_image);
        MachineSettings settings = _machine.Read(arguments);
        KernelImage image = KernelInput.Read(path, run).Open(arguments, _imageOptions);
        if (!KernelAudit.TryCreate(image, out KernelAudit? audit, out PatchDiagnostic? error))
        {
            throw new ToolFailure(KernelPlan.In(path, [error]));
        }

        string[] named = arguments.GetValue(_backends) ?? [];
        Array.ForEach(named, KernelPlan.CheckName);
        BootMachine[] machines = [.. (named.Length > 0 ? named.Distinct() : image.BackendNames).Select(n => settings.Machine(image, n))];
        if (!audit.TryAudit(
            machines, out IReadOnlyList<BackendAudit>? audits, out IReadOnlyList<PatchDiagnostic> diagnostics, run.Console.Cancellation))
        {
            throw new ToolFailure(KernelPlan.In(path, diagnostics));
        }

        if (run.IsJson)
        {
            run.WriteJson(AuditDocument.Of(path, image, audits, audit.Analyzer.Unconventional));
        }
        else
        {
            AuditText.Write(image, audits, run.Out);
        }

        run.Warn([.. audits.SelectMany(static a => a.Diagnostics).Distinct()]);
        return audits.All(static a => a.IsSound) ? ExitCode.Success : ExitCode.Different;
    }
}
