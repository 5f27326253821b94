using System.CommandLine;
using PvPatch.Linux.Kernel;
using PvPatch.Plans;
using PvPatch.Tool.Kernels;

namespace PvPatch.Tool.Commands;

/// <summary><c>pvpatch explain</c>: everything about one site.</summary>
internal sealed class ExplainCommand : ToolCommand
{
    private readonly Argument<string> _image = KernelInput.Argument();

    private readonly Argument<string> _address = new("ADDRESS")
    {
        Description = "An address within a site, in hexadecimal; or site:N, counted from 0; or function+0x12 where the file has symbols",
    };

    private readonly Option<string> _backend = KernelPlan.Backend();

    public ExplainCommand()
        : base(
            "explain",
            "Say of one site what it is, what becomes of it and why, with both disassemblies.",
            "explain vmlinuz 0xffffffff810024d6",
            "explain vmlinuz site:0 --json")
    {
        Definition.Arguments.Add(_image);
        Definition.Arguments.Add(_address);
        Definition.Options.Add(_backend);
    }

    public override ExitCode Execute(ParseResult arguments, ToolRun run)
    {
        string path = arguments.GetRequiredValue(_image);
        KernelImage image = KernelInput.Read(path, run).Open();
        var names = new KernelNames(image);
        int index = SiteChoice.Find(image, names, arguments.GetRequiredValue(_address));
        PatchPlan plan = KernelPlan.Make(image, arguments.GetRequiredValue(_backend), path);
        var explanation = new SiteExplanation(image, plan, index, names);
        if (run.IsJson)
        {
            run.WriteJson(json => ExplainJson.Write(explanation, path, json));
        }
        else
        {
            ExplainText.Write(explanation, run.Out);
        }

        return ExitCode.Success;
    }
}
