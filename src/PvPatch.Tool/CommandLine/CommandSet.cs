using System.CommandLine;
using System.CommandLine.Help;
using PvPatch.Tool.Allowed;
using PvPatch.Tool.Audit;
using PvPatch.Tool.Demo;
using PvPatch.Tool.Diff;
using PvPatch.Tool.Explain;
using PvPatch.Tool.Info;
using PvPatch.Tool.Layout;
using PvPatch.Tool.Patch;
using PvPatch.Tool.Plan;
using PvPatch.Tool.Revert;
using PvPatch.Tool.Sites;
using PvPatch.Tool.Verify;

namespace PvPatch.Tool.CommandLine;

/// <summary>The commands of the tool, and the root command.</summary>
internal sealed class CommandSet
{
    private readonly ToolCommand[] _commands =
    [
        new DemoCommand(),
        new InfoCommand(),
        new LayoutCommand(),
        new SitesCommand(),
        new PlanCommand(),
        new ExplainCommand(),
        new PatchCommand(),
        new RevertCommand(),
        new VerifyCommand(),
        new DiffCommand(),
        new AllowedCommand(),
        new AuditCommand(),
    ];

    public CommandSet()
    {
        Root = new RootCommand("Shows, writes and takes back what stands at the paravirt call sites of x86 Linux kernels.");
        Root.Options.Add(NoColour);
        Root.Options.Add(UnpackWithPrograms);
        Root.HelpName = "pvpatch";
        foreach (ToolCommand command in _commands)
        {
            Root.Subcommands.Add(command.Definition);
        }

        foreach (Option option in Root.Options)
        {
            if (option is HelpOption)
            {
                option.Action = new HelpTextAction(this);
            }
        }
    }

    public RootCommand Root { get; }

    /// <summary>For all commands: no colours.</summary>
    public Option<bool> NoColour { get; } = new("--no-color") { Description = "Never use colours, as with NO_COLOR=1", Recursive = true };

    /// <summary>For all commands that read a kernel: programs of the system instead of the decoders within the tool.</summary>
    public Option<bool> UnpackWithPrograms { get; } = new("--unpack-with-programs")
    {
        Description = "Unpack kernels by the system's xz, zstd, lz4 and bzip2 instead of within the tool",
        Recursive = true,
    };

    public IReadOnlyList<ToolCommand> Commands => _commands;

    public ToolCommand? Find(Command definition) => Array.Find(_commands, c => c.Definition == definition);
}
