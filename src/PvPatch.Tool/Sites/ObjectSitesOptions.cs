using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using PvPatch.Linux.Objects;
using PvPatch.Mechanisms;

namespace PvPatch.Tool.Sites;

/// <summary>The options by which <c>sites</c> reads object files and programs in place of kernels.</summary>
internal sealed class ObjectSitesOptions
{
    /// <summary>The most slots of a table. The table ends before where its symbol does.</summary>
    private const int MostSlots = 4096;

    private readonly Option<bool> _records = new("--records")
    {
        Description = "Instead of a kernel: an object file or program, the sites that it recorded with pvpatch.inc",
    };

    private readonly Option<bool> _relocations = new("--relocations")
    {
        Description = "Instead of a kernel: an object file or program linked with --emit-relocs, the callers of --table and --function",
    };

    private readonly Option<string[]> _tables = new("--table")
    {
        Description = "With --relocations: a table of operations whose callers are sites; with the number of its slots",
        HelpName = "SYMBOL[=SLOTS]",
    };

    private readonly Option<string[]> _functions = new("--function")
    {
        Description = "With --relocations: a function whose callers are sites, of a slot of its own or of one of a table (pv_ops.3)",
        HelpName = "SYMBOL[=SLOT]",
    };

    private readonly Option[] _own;

    /// <summary>Gives the command the options.</summary>
    public ObjectSitesOptions(Command command)
    {
        _own = [_records, _relocations, _tables, _functions];
        Array.ForEach(_own, command.Options.Add);
        command.Validators.Add(Check);
    }

    /// <summary>Whether the file is to be read for its records.</summary>
    public bool WantsRecords(ParseResult arguments) => arguments.GetValue(_records);

    /// <summary>Whether the file is to be read for its relocations.</summary>
    public bool WantsRelocations(ParseResult arguments) => arguments.GetValue(_relocations);

    /// <summary>
    /// The names of the command line. Slots of tables are called by table and number, those of functions by the function.
    /// </summary>
    /// <exception cref="ToolFailure">A number or slot is none.</exception>
    public SiteNames Names(ParseResult arguments)
    {
        var tables = new Dictionary<string, Range>(StringComparer.Ordinal);
        var functions = new Dictionary<string, int>(StringComparer.Ordinal);
        (string Name, string? Slots)[] listed = Read(arguments, _tables);
        (string Name, string? Slot)[] called = Read(arguments, _functions);
        int next = 0;
        OpsLayout layout = OpsLayout.Create(builder =>
        {
            foreach ((string name, string? slots) in listed)
            {
                int count = Count(name, slots);
                tables.Add(name, next..(next + count));
                next += count;
                builder.Table(name, t =>
                {
                    for (int i = 0; i < count; i++)
                    {
                        t.Slot(i.ToString(CultureInfo.InvariantCulture));
                    }
                });
            }

            builder.Table("", t =>
            {
                foreach ((string name, _) in called.Where(static f => f.Slot is null))
                {
                    t.Slot(name);
                    functions.Add(name, next++);
                }
            });
        });
        foreach ((string name, string? slot) in called.Where(static f => f.Slot is not null))
        {
            functions.Add(
                name, layout.TryGetSlot(slot!, out OpSlot? found, out PatchDiagnostic? error) ? found.Index : throw new ToolFailure(error));
        }

        return new SiteNames { Layout = layout, Tables = tables, Functions = functions };
    }

    private static (string Name, string? Value)[] Read(ParseResult arguments, Option<string[]> option)
    {
        var names = new HashSet<string>(StringComparer.Ordinal);
        var read = new List<(string Name, string? Value)>();
        foreach (string text in arguments.GetValue(option) ?? [])
        {
            int at = text.IndexOf('=', StringComparison.Ordinal);
            string name = at < 0 ? text : text[..at];
            if (name.Length == 0 || !names.Add(name))
            {
                string takes = name.Length == 0 ? "the name of a symbol" : "each symbol once";
                throw new ToolFailure(PatchDiagnostic.Error(ToolDiagnosticCodes.Usage, $"{option.Name} takes {takes}") with
                {
                    Found = text,
                });
            }

            read.Add((name, at < 0 ? null : text[(at + 1)..]));
        }

        return [.. read];
    }

    private static int Count(string table, string? slots)
    {
        if (slots is null)
        {
            return MostSlots;
        }

        return int.TryParse(slots, NumberStyles.None, CultureInfo.InvariantCulture, out int count) && count is > 0 and <= MostSlots
            ? count
            : throw new ToolFailure(PatchDiagnostic.Error(ToolDiagnosticCodes.Usage, $"--table {table} takes a number of slots") with
            {
                Found = slots,
                Expected = $"1 to {MostSlots}",
            });
    }

    private void Check(CommandResult result)
    {
        bool records = IsGiven(result, _records);
        bool relocations = IsGiven(result, _relocations);
        bool names = IsGiven(result, _tables) || IsGiven(result, _functions);
        if (records && relocations)
        {
            result.AddError("Either --records or --relocations can be given, not both");
        }
        else if (names != relocations)
        {
            result.AddError(names ? "--table and --function go with --relocations" : "--relocations needs a --table or a --function");
        }

        if (!records && !relocations)
        {
            return;
        }

        foreach (Option option in result.Command.Options)
        {
            if (option.Name != "--json" && !_own.Contains(option) && IsGiven(result, option))
            {
                result.AddError($"{option.Name} is of kernels: it does not go with {(records ? _records.Name : _relocations.Name)}");
            }
        }
    }

    private static bool IsGiven(CommandResult result, Option option) => result.GetResult(option) is { Implicit: false };
}
