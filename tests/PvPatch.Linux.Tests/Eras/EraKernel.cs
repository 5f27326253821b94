using System.Globalization;
using System.Text;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Eras;

/// <summary>
/// A kernel of an older era, assembled and linked by binutils: once with its sites as the compiler leaves them, and once for each backend
/// with what stands there after boot, written as assembly. The plan of the first must make it the other, every byte of code compared.
/// </summary>
internal sealed class EraKernel
{
    private const string Same = "=";

    /// <summary>32 or 64.</summary>
    public required int Bits { get; init; }

    /// <summary>
    /// The sites: a line of column names, then one line a site, in the order of the site table. Columns are parted by bars: type, clobber
    /// word (a dash where the record ends without one), original code, and the code on each backend (an equals sign for the original).
    /// </summary>
    public required string Sites { get; init; }

    /// <summary>The order of the slots.</summary>
    public required OpsLayout Layout { get; init; }

    /// <summary>How the tables lie: one label for all of them, or a label for each (<c>pv_irq_ops</c>).</summary>
    public string? OneTable { get; init; }

    /// <summary>Slots that hold something else than the native function of their name.</summary>
    public Dictionary<string, string> Words { get; init; } = [];

    /// <summary>Functions and data beside the native ones: one line each, a name, a colon and code.</summary>
    public string More { get; init; } = "";

    /// <summary>Assembler source before all else: values of symbols.</summary>
    public string Defines { get; init; } = "";

    /// <summary>Data behind the tables of the layout.</summary>
    public string MoreData { get; init; } = "";

    /// <summary>The data, where it is not the tables of the layout.</summary>
    public string? Data { get; init; }

    public ElfImage Link(string column = "original", bool symbols = true)
    {
        using var folder = new TestFolder();
        string objectFile = folder.File("in.o", Tools.Assemble(Source(column), Bits));
        string result = folder.File("out");
        string[] strip = symbols ? [] : ["-s"];
        Tools.Pipe([], "ld", ["-m", Bits == 64 ? "elf_x86_64" : "elf_i386", "-e", "0", "--no-warn-rwx-segments", .. strip, .. Places(),
            "-o", result, objectFile]);
        return ElfImage.Read(File.ReadAllBytes(result));
    }

    public KernelImage Open(KernelOptions? options = null, bool symbols = true)
    {
        Assert.True(
            KernelImage.TryOpen(Link(symbols: symbols), options, out KernelImage? image, out PatchDiagnostic? error), error?.ToString());
        return image;
    }

    public PatchDiagnostic OpenError(string code, KernelOptions? options = null, bool symbols = true)
    {
        Assert.False(KernelImage.TryOpen(Link(symbols: symbols), options, out _, out PatchDiagnostic? error));
        Assert.True(error.Code == code, $"{code} was expected, not {error}");
        return error;
    }

    /// <summary>Plans the original for a machine and compares all of its code with what the assembler makes of the column.</summary>
    public PatchPlan MustBecome(string column, BootMachine machine, KernelOptions? options = null, bool symbols = true)
    {
        KernelImage image = Open(options, symbols);
        Assert.True(new KernelPlanner().TryPlan(image, machine, out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> found),
            string.Join('\n', found));
        Assert.Equal(Rows.Count(), plan.Count);
        ElfImage wanted = Link(column);
        string before = Code(image.Elf);
        plan.Apply(image.Code);
        string expected = Code(wanted);
        string actual = Code(image.Elf);
        Assert.True(expected == actual, expected == actual ? "" : Differences(plan, wanted));
        Assert.NotEqual(before, actual);
        plan.Revert(image.Code);
        Assert.Equal(before, Code(image.Elf));
        return plan;
    }

    private IEnumerable<string[]> Rows => Sites.Split('\n', StringSplitOptions.RemoveEmptyEntries).Skip(1).Select(Cells);

    private static string[] Cells(string line) => [.. line.Split('|').Select(static c => c.Trim())];

    private string Source(string column)
    {
        string[] columns = Cells(Sites.Split('\n', StringSplitOptions.RemoveEmptyEntries)[0]);
        int chosen = Array.IndexOf(columns, column);
        Assert.True(chosen >= 2, $"there is no column {column}");
        string word = Bits == 64 ? ".quad" : ".long";
        var source = new StringBuilder(EraNops.Macros).Append(Defines).Append("\n.text\nstart: push %").Append(Bits == 64 ? "rbp" : "ebp")
            .Append('\n');
        foreach (string[] cells in Rows)
        {
            Assert.Equal(columns.Length, cells.Length);
            string code = cells[chosen] == Same ? cells[2] : cells[chosen];

            // The assembler would take the short form for a target nearby; no kernel does.
            code = code.StartsWith("jmp ", StringComparison.Ordinal) && !code.Contains('*', StringComparison.Ordinal)
                ? "{disp32} " + code : code;
            source.Append(CultureInfo.InvariantCulture,
                $"771: {code}\n772: mov %esp, %ebp\n.pushsection .parainstructions, \"a\"\n.balign {Bits / 8}\n{word} 771b\n.byte "
                + $"{cells[0]}, 772b - 771b\n");
            source.Append(cells[1] == "-" ? "" : $".short {cells[1]}\n").Append(".popsection\n");
        }

        source.Append("ret\n.balign 16\n").Append(EraFunctions.Source(Layout, Bits));
        foreach (string line in More.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            string name = line[..line.IndexOf(':', StringComparison.Ordinal)].Trim();
            source.Append(CultureInfo.InvariantCulture, $".globl {name}\n.type {name}, @function\n{line}\n");
        }

        source.Append(".data\n").Append(word).Append(" 0x11223344\n").Append(Data);
        if (Data is not null)
        {
            return source.Append('\n').ToString();
        }

        foreach (OpsTable table in Layout.Tables)
        {
            // Other data between tables: they are not one row.
            source.Append(OneTable is null ? $"{word} 0x55667788\n.globl pv_{table.Name}_ops\npv_{table.Name}_ops:\n"
                : table == Layout.Tables[0] ? $".globl {OneTable}\n{OneTable}:\n" : "");
            foreach (OpSlot slot in table.Slots)
            {
                source.Append(CultureInfo.InvariantCulture, $"{word} {Words.GetValueOrDefault(slot.Name, EraFunctions.Of(slot))}\n");
            }
        }

        return source.Append(MoreData).Append('\n').ToString();
    }

    private IEnumerable<string> Places()
    {
        ulong start = Bits == 64 ? 0xffffffff81000000 : 0xc0100000;
        foreach ((string section, ulong offset) in ((string, ulong)[])[(".text", 0), (".data", 0x200000), (".parainstructions", 0x300000)])
        {
            yield return string.Create(CultureInfo.InvariantCulture, $"--section-start={section}=0x{start + offset:x}");
        }
    }

    private static string Code(ElfImage elf) =>
        string.Join('\n', elf.Sections.Where(s => s.IsExecutable).Select(s => $"{s.Name} {Convert.ToHexString(elf.GetBytes(s).Span)}"));

    private static string Differences(PatchPlan plan, ElfImage wanted)
    {
        var text = new StringBuilder("the patched code is not the expected one");
        for (int i = 0; i < plan.Count; i++)
        {
            SiteDecision site = plan[i];
            Assert.True(wanted.TryGetBytes(site.Address, site.Length, out Memory<byte> bytes));
            if (!site.NewBytes.SequenceEqual(bytes.Span))
            {
                text.Append(CultureInfo.InvariantCulture,
                    $"\n{i} {site.Label}: {HexBytes.Format(site.NewBytes)} ({site.Action} {site.Reason}), expected "
                    + $"{HexBytes.Format(bytes.Span)}");
            }
        }

        return text.ToString();
    }
}
