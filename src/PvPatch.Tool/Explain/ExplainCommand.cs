using System.CommandLine;
using PvPatch.Linux;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tool.Explain;

/// <summary><c>pvpatch explain</c>: facts and decisions of one site, or of the sites of one slot, on every backend.</summary>
internal sealed class ExplainCommand : ToolCommand
{
    private readonly Argument<string> _image = KernelInput.Argument();

    private readonly Argument<string> _place = new("PLACE")
    {
        Description =
            "An address within a site, in hexadecimal; site:N, counted from 0; function+0x12 where the kernel has symbols; or a slot",
    };

    private readonly Option<string[]> _backends = KernelPlan.Backends(
        "Only this backend, in just the setting that the options say; may be given again");

    private readonly MachineOptions _machine;

    private readonly ImageOptions _imageOptions;

    public ExplainCommand()
        : base(
            "explain",
            "Say of one site what it is, what becomes of it on every backend and why, with both disassemblies; or the same of a slot, "
                + "summed up.",
            "explain vmlinuz 0xffffffff810024d6",
            "explain vmlinuz site:0 --json",
            "explain vmlinuz irq.irq_disable --backend native --backend xen")
    {
        Definition.Arguments.Add(_image);
        Definition.Arguments.Add(_place);
        Definition.Options.Add(_backends);
        _machine = new MachineOptions(Definition);
        _imageOptions = new ImageOptions(Definition);
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        string path = arguments.GetRequiredValue(_image);
        string place = arguments.GetRequiredValue(_place);
        MachineSettings settings = _machine.Read(arguments);
        KernelImage image = KernelInput.Read(path, run).Open(arguments, _imageOptions);
        var names = new KernelNames(image);
        OpSlot? slot = SiteChoice.FindSlot(image, place);
        int index = slot is null ? SiteChoice.Find(image, names, place) : -1;
        IReadOnlyList<PatchPlan> PlansAt(IReadOnlyList<VirtualAddress> sites) =>
            Candidates.Differing(image, settings, arguments.GetValue(_backends) ?? [], sites, path, run);
        if (slot is null)
        {
            WriteSite(run, new SiteExplanation(image, PlansAt([image.Sites[index].Address]), index, names), path);
        }
        else
        {
            WriteSlot(run, new SlotExplanation(image, slot, PlansAt, names), path);
        }

        return ExitCode.Success;
    }

    private static void WriteSite(ToolRun run, SiteExplanation site, string path)
    {
        if (run.IsJson)
        {
            run.WriteJson(ExplainDocument.Of(site, path));
        }
        else
        {
            ExplainText.Write(site, run.Out);
        }
    }

    private static void WriteSlot(ToolRun run, SlotExplanation slot, string path)
    {
        if (run.IsJson)
        {
            run.WriteJson(slot.ToDocument(path));
        }
        else
        {
            slot.WriteText(run.Out);
        }
    }
}
