using System.CommandLine;
using PvPatch.Linux;
using PvPatch.Linux.Audit;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tool.Audit;

/// <summary>
/// <c>pvpatch audit</c>: whether what is put at each site destroys a register that is read behind it, computed from the kernel's code.
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
        string[] named = arguments.GetValue(_backends) ?? [];
        if (image.Bitness != 64)
        {
            throw new ToolFailure(PatchDiagnostic.Error(
                ToolDiagnosticCodes.Usage, "only kernels of 64 bits can be audited") with
            { Source = path, Found = "a kernel of 32 bits" });
        }

        // All are planned before the first is audited: a name that is wrong is found at once.
        var plans = new List<(PatchPlan Plan, Backend Backend)>();
        foreach (string name in named.Length > 0 ? named.Distinct() : image.BackendNames)
        {
            BootMachine machine = settings.Machine(image, name);
            plans.Add((KernelPlan.Make(image, machine, path), KernelBackends.Create(image, machine)));
        }

        var audit = new KernelAudit(image);
        var reports = new List<AuditReport>();
        foreach ((PatchPlan plan, Backend backend) in plans)
        {
            reports.Add(new AuditReport(image, plan, audit.Audit(plan, backend, run.Console.Cancellation), audit.AuditSlots(backend)));
        }

        if (run.IsJson)
        {
            run.WriteJson(AuditDocument.Of(path, image, reports, audit));
        }
        else
        {
            AuditText.Write(image, reports, run.Out);
        }

        return reports.Exists(static r => r.Contradictions > 0 || r.Broken > 0 || r.BrokenSlots.Any())
            ? ExitCode.Different : ExitCode.Success;
    }
}
