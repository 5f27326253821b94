using System.CommandLine;
using PvPatch.Linux;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Layouts;
using PvPatch.Mechanisms;

namespace PvPatch.Tool.CommandLine;

/// <summary>The options for facts that an image lacks: symbols, era, layout.</summary>
internal sealed class ImageOptions
{
    private readonly Option<string?> _systemMap = new("--system-map")
    {
        Description = "The System.map of this kernel, where the image has no symbols",
        HelpName = "FILE",
    };

    private readonly Option<string?> _kallsyms = new("--kallsyms")
    {
        Description = "A copy of /proc/kallsyms of this kernel, for the same purpose",
        HelpName = "FILE",
    };

    private readonly Option<string?> _era = new("--era")
    {
        Description = $"The era, in place of the one found out: {string.Join(", ", KernelEra.All.Select(static e => e.Name))}",
        HelpName = "NAME",
    };

    private readonly Option<string?> _layout = new("--layout")
    {
        Description = "The order of the slots, in place of the one found out: a file, or the name of an order that is known",
        HelpName = "FILE",
    };

    /// <summary>Gives a command the options.</summary>
    public ImageOptions(Command command)
    {
        command.Options.Add(_systemMap);
        command.Options.Add(_kallsyms);
        command.Options.Add(_era);
        command.Options.Add(_layout);
        _era.Validators.Add(result =>
        {
            if (result.Tokens.Count == 1 && !KernelEra.TryGet(result.Tokens[0].Value, out _))
            {
                result.AddError(
                    $"--era takes one of {string.Join(", ", KernelEra.All.Select(static e => e.Name))}, not \"{result.Tokens[0].Value}\"");
            }
        });
        _layout.Validators.Add(result =>
        {
            if (result.Tokens is [{ Value.Length: 0 }])
            {
                result.AddError("--layout takes a file or a name, not an empty text");
            }
        });
        command.Validators.Add(result =>
        {
            if (result.GetResult(_systemMap) is not null && result.GetResult(_kallsyms) is not null)
            {
                result.AddError("Either --system-map or --kallsyms can be given, not both");
            }
        });
    }

    /// <summary>The files that the options name.</summary>
    public IEnumerable<string?> Files(ParseResult arguments) =>
        [arguments.GetValue(_systemMap), arguments.GetValue(_kallsyms), arguments.GetValue(_layout)];

    /// <summary>The values of the options.</summary>
    /// <exception cref="ToolFailure">A file of symbols or slots cannot be read (PV7007, PV6083 to PV6085, PV6160 to PV6163).</exception>
    public KernelOptions Read(ParseResult arguments, ElfImage elf) => new()
    {
        Era = arguments.GetValue(_era) is string name && KernelEra.TryGet(name, out KernelEra? era) ? era : null,
        Symbols = arguments.GetValue(_systemMap) is string map ? SymbolFile.ReadSystemMap(map)
            : arguments.GetValue(_kallsyms) is string listing ? SymbolFile.ReadKallsyms(listing, elf)
            : null,
        Layout = arguments.GetValue(_layout) is string layout ? ReadLayout(layout) : null,
    };

    private static OpsLayout ReadLayout(string nameOrPath) =>
        KernelLayouts.TryLoad(nameOrPath, out OpsLayout? layout, out PatchDiagnostic? error)
            ? layout : throw new ToolFailure(error with { Source = error.Source ?? nameOrPath });
}
