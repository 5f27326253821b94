using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tables;
using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Layouts;

/// <summary>
/// Reads the layout of a kernel's ops table out of its own type information (<c>.BTF</c>, struct paravirt_patch_template).
/// </summary>
internal static class KernelLayoutReader
{
    public const string Section = ".BTF";

    private const int MostNamed = 12;

    // Slots that entry code leaves by a jump, as long as they existed (to 5.12); what the kernel's own patcher knew by number.
    private static readonly HashSet<string> s_jumps =
        ["cpu.iret", "cpu.irq_enable_sysexit", "cpu.irq_enable_syscall_ret", "cpu.usergs_sysret32", "cpu.usergs_sysret64"];

    // The patch hook itself (to 5.12): called as C, never through a site.
    private static readonly HashSet<string> s_data = ["init.patch", "patch"];

    /// <summary>Reads the layout.</summary>
    /// <param name="elf">The kernel.</param>
    /// <param name="symbols">Its symbols, by which a known layout can be told where there is no type information.</param>
    /// <param name="evidence">
    /// Evidence of its sites, used without type information; <see langword="null"/> without a table of sites.
    /// </param>
    /// <param name="era">The era, where the caller knows it.</param>
    /// <param name="found">The layout.</param>
    /// <param name="error">The reason where there is none.</param>
    public static bool TryRead(
        ElfImage elf,
        KernelSymbols? symbols,
        SiteEvidence? evidence,
        KernelEra? era,
        [NotNullWhen(true)] out FoundLayout? found,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        found = null;
        if (!elf.TryGetSection(Section, out ElfSection? section))
        {
            var older = new OlderLayouts(elf, symbols);
            bool isKnown = evidence is null ? older.TryFind(out found)
                : older.TryFind(evidence, era?.Placement ?? evidence.PlacementOf(symbols), out found);
            error = isKnown ? null : NoTypes(older);
            return isKnown;
        }

        if (!BtfFile.TryRead(elf.GetBytes(section), out BtfFile? types, out error)
            || !types.TryReadStruct(BtfStructLayout.PatchTemplate, elf.Bitness, out BtfStruct? template, out error))
        {
            error = error with { FileOffset = section.FileOffset + (error.FileOffset ?? 0) };
            return false;
        }

        if (template.Members.Any(static m => m.Path.StartsWith("lock.", StringComparison.Ordinal))
            || !types.TryReadStruct("pv_lock_ops", elf.Bitness, out BtfStruct? locks, out _)
            || !TryBuild(locks, elf.Bitness, out _, out _))
        {
            found = TryBuild(template, elf.Bitness, out OpsLayout? layout, out error) ? new FoundLayout(layout, layout.Count) : null;
            return found is not null;
        }

        var both = new BtfStruct(template.Name, template.Size + locks.Size,
            [.. template.Members, .. locks.Members.Select(m => m with { Path = $"lock.{m.Path}", Offset = m.Offset + template.Size })]);
        found = TryBuild(both, elf.Bitness, out OpsLayout? all, out error) ? new FoundLayout(all, template.Members.Count) : null;
        return found is not null;
    }

    private static PatchDiagnostic NoTypes(OlderLayouts older)
    {
        string found = older.LacksTable ? $"no symbol {SlotWordLocator.MainTable}, without which no order can be proved"
            : older.Proved.Count > 0 ? $"several orders that the functions in its tables prove: {Names(older.Proved)}"
            : "no order that the functions in its tables prove";
        string fits = older.LacksTable ? ""
            : older.Allowed.Count == 0 ? "; none of the orders known fits the sites"
            : $"; the sites would fit {Names(older.Allowed)}";
        return PatchDiagnostic.Error(KernelDiagnosticCodes.LayoutUnknown, "the kernel does not say how its ops table is ordered") with
        {
            Found = $"no section {Section}, and {found}",
            Expected = $"type information with struct paravirt_patch_template{fits}",
            Help = (older.LacksTable ? "Give a System.map of this kernel, and if that is not enough the" : "Give the")
                + " order of the slots: a release with a configuration, or a file with one (--layout).",
        };
    }

    private static string Names(IReadOnlyList<KnownOrder> orders) =>
        string.Join(", ", orders.Take(MostNamed).Select(static o => o.Name))
        + (orders.Count > MostNamed ? $" and {orders.Count - MostNamed} more" : "");

    private static bool TryBuild(
        BtfStruct template, int bitness, [NotNullWhen(true)] out OpsLayout? layout, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        layout = null;
        int word = bitness / 8;
        int next = 0;
        string? table = null;
        HashSet<string> tables = [];
        foreach (BtfMember member in template.Members)
        {
            if (member.Offset != next || member.Size != word || next / word > byte.MaxValue)
            {
                return Fail(template, "is not a row of at most 256 words", $"{member.Path}: {member.Size} bytes at {member.Offset}",
                    $"{word} bytes at {next}", out error);
            }

            // The slots of a layout are numbered table by table; members of another table in between would shift the numbers.
            if (TableOf(member.Path) != table && !tables.Add(table = TableOf(member.Path)))
            {
                return Fail(
                    template, "has the parts of a table apart from each other", member.Path, $"all of {table} in one place", out error);
            }

            if (ShortNameOf(member.Path).Length == 0)
            {
                return Fail(
                    template, "has a slot without a name", $"\"{member.Path}\" at {member.Offset}", "a name for every slot", out error);
            }

            next += word;
        }

        if (next == 0 || next != template.Size)
        {
            return Fail(template, "is not a row of words from its start to its end",
                $"{template.Members.Count} members in {template.Size} bytes", $"a member for each {word} bytes", out error);
        }

        CallConvention ordinary = bitness == 64 ? CallConvention.KernelSysV : CallConvention.I386RegParm;
        try
        {
            layout = OpsLayout.Create(
                b =>
                {
                    foreach (IGrouping<string, BtfMember> part in template.Members.GroupBy(static m => TableOf(m.Path)))
                    {
                        b.Table(part.Key, t => AddSlots(t, part), ordinary);
                    }
                },
                template.Name);
        }
        catch (PatchException e)
        {
            error = e.Diagnostic;
            return false;
        }

        error = null;
        return true;
    }

    private static void AddSlots(OpsTableBuilder table, IEnumerable<BtfMember> members)
    {
        foreach (BtfMember member in members)
        {
            SlotKind kind = s_jumps.Contains(member.Path) ? SlotKind.Jump
                : s_data.Contains(member.Path) || !member.IsPointer ? SlotKind.Data
                : SlotKind.Call;
            table.Slot(ShortNameOf(member.Path), kind, member.IsCalleeSave ? CallConvention.CalleeSave : null);
        }
    }

    private static string TableOf(string path) => path.IndexOf('.', StringComparison.Ordinal) is int dot and > 0 ? path[..dot] : "";

    private static string ShortNameOf(string path) => TableOf(path) is { Length: > 0 } table ? path[(table.Length + 1)..] : path;

    private static bool Fail(BtfStruct template, string what, string found, string expected, out PatchDiagnostic error)
    {
        error = PatchDiagnostic.Error(
            KernelDiagnosticCodes.LayoutUnknown, $"struct {template.Name} {what}") with
        { Found = found, Expected = expected };
        return false;
    }
}
