using System.CommandLine;
using PvPatch.Linux.Elf;
using PvPatch.Linux.Kernel;

namespace PvPatch.Tool.Kernels;

/// <summary>The options by which a user tells what the image does not say: symbols and era.</summary>
internal sealed class ImageOptions
{
    private readonly Option<string?> _systemMap = new("--system-map") { Description = "The System.map of this kernel, where the image has no symbols", HelpName = "FILE" };

    private readonly Option<string?> _kallsyms = new("--kallsyms") { Description = "A copy of /proc/kallsyms of this kernel, for the same purpose", HelpName = "FILE" };

    private readonly Option<string?> _era = new("--era")
    {
        Description = $"The era, in place of the one found out: {string.Join(", ", KernelEra.All.Select(static e => e.Name))}",
        HelpName = "NAME",
    };

    /// <summary>Gives a command the options.</summary>
    public ImageOptions(Command command)
    {
        command.Options.Add(_systemMap);
        command.Options.Add(_kallsyms);
        command.Options.Add(_era);
        _era.Validators.Add(result =>
        {
            if (result.Tokens.Count == 1 && !KernelEra.TryGet(result.Tokens[0].Value, out _))
            {
                result.AddError($"--era takes one of {string.Join(", ", KernelEra.All.Select(static e => e.Name))}, not \"{result.Tokens[0].Value}\"");
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

    /// <summary>What the command line says of an image.</summary>
    /// <exception cref="ToolFailure">A file of symbols cannot be read (PV7007, PV6083 to PV6085).</exception>
    public KernelOpenOptions Read(ParseResult arguments, ElfImage elf) => new()
    {
        Era = arguments.GetValue(_era) is string name && KernelEra.TryGet(name, out KernelEra? era) ? era : null,
        Symbols = arguments.GetValue(_systemMap) is string map ? SymbolFile.ReadSystemMap(map)
            : arguments.GetValue(_kallsyms) is string listing ? SymbolFile.ReadKallsyms(listing, elf)
            : null,
    };
}
