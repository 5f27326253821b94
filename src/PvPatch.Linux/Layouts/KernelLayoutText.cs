using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Layouts;

/// <summary>
/// Reads the order of an ops table from text: a line <c>bits 32</c> or <c>bits 64</c>, then one line a slot in order, the full name with a
/// star behind it where the slot is callee-save (<c>irq.save_fl*</c>). A number before the name is checked; <c>jump</c> or <c>data</c> may
/// stand behind it; <c>#</c> begins a comment.
/// </summary>
internal static class KernelLayoutText
{
    // The type number of a site is one byte.
    private const int MaxSlots = 256;

    // A line of the longest sensible name, number and kind, 256 times, with as much again for comments. More is no layout.
    public const int MaxLength = 64 * 1024;

    private const int MaxName = 64;

    // Slots that entry code leaves by a jump, and words that no site calls through; the kind need not be said of them.
    private static readonly HashSet<string> s_jumps =
    [
        "iret", "irq_enable_sysexit",
        "cpu.iret", "cpu.irq_enable_sysexit", "cpu.irq_enable_syscall_ret", "cpu.usergs_sysret32", "cpu.usergs_sysret64",
    ];

    private static readonly HashSet<string> s_data = ["init.patch", "patch", "kernel_rpl", "shared_kernel_pmd", "paravirt_enabled", "name"];

    private readonly record struct Line(string Table, string Name, SlotKind Kind, bool CalleeSave);

    /// <summary>Reads a layout.</summary>
    /// <param name="utf8">The text.</param>
    /// <param name="name">The layout's name, for reports.</param>
    /// <param name="layout">The layout.</param>
    /// <param name="error">PV6160 to PV6163, or PV2003 for a name that occurs twice.</param>
    public static bool TryRead(
        ReadOnlySpan<byte> utf8, string name, [NotNullWhen(true)] out OpsLayout? layout, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        layout = null;
        if (utf8.Length > MaxLength)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.LayoutTooLarge, "the text is too long for a layout") with
            {
                Found = $"{utf8.Length} bytes",
                Expected = $"at most {MaxLength}",
            };
            return false;
        }

        if (!TryReadLines(utf8, out List<Line> slots, out int bits, out error))
        {
            return false;
        }

        if (bits == 0 || slots.Count == 0)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.LayoutIncomplete,
                bits == 0 ? "the layout does not say whether it is of a 32-bit or a 64-bit kernel" : "the layout has no slots") with
            {
                Expected = bits == 0
                    ? "a line \"bits 32\" or \"bits 64\" before the first slot" : "one line a slot, as in \"irq.save_fl*\"",
            };
            return false;
        }

        return TryBuild(name, slots, bits, out layout, out error);
    }

    private static bool TryReadLines(
        ReadOnlySpan<byte> utf8, out List<Line> slots, out int bits, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        slots = [];
        bits = 0;
        error = null;
        int number = 0;
        HashSet<string> finished = [];
        foreach (Range range in utf8.Split((byte)'\n'))
        {
            number++;
            ReadOnlySpan<byte> bytes = utf8[range];
            bytes = bytes[..(bytes.IndexOf((byte)'#') is int comment and >= 0 ? comment : bytes.Length)];
            string[] words = System.Text.Encoding.UTF8.GetString(bytes).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
            if (words.Length == 0)
            {
                continue;
            }

            if (words is ["bits", "32" or "64"] && bits == 0 && slots.Count == 0)
            {
                bits = words[1] == "64" ? 64 : 32;
                continue;
            }

            if (slots.Count == MaxSlots)
            {
                error = PatchDiagnostic.Error(KernelDiagnosticCodes.LayoutTooLarge,
                    "the layout has more slots than a site table can number") with
                {
                    Source = $"line {number}",
                    Expected = $"at most {MaxSlots}"
                };
                return false;
            }

            if (!TryReadSlot(words, slots.Count, out Line slot, out string? expected))
            {
                error = Bad(number, words, expected);
                return false;
            }

            // Slots are numbered table by table; a table that is taken up again would shift the numbers.
            if (slots.Count > 0 && slots[^1].Table != slot.Table)
            {
                finished.Add(slots[^1].Table);
            }

            if (finished.Contains(slot.Table))
            {
                error = Bad(number, words, $"all slots of the table \"{slot.Table}\" in one place");
                return false;
            }

            slots.Add(slot);
        }

        return true;
    }

    private static bool TryReadSlot(string[] words, int index, out Line slot, out string expected)
    {
        slot = default;
        expected = "a slot: perhaps its number, its name with a * behind it where it is callee-save, perhaps \"jump\" or \"data\"";
        ReadOnlySpan<string> rest = words;
        if (int.TryParse(rest[0], NumberStyles.None, CultureInfo.InvariantCulture, out int number))
        {
            if (number != index)
            {
                expected = $"the number {index}";
                return false;
            }

            rest = rest[1..];
        }

        if (rest.Length is not (1 or 2) || (rest.Length == 2 && rest[1] is not ("jump" or "data")))
        {
            return false;
        }

        string name = rest[0];
        bool calleeSave = name.EndsWith('*');
        name = calleeSave ? name[..^1] : name;
        if (!IsName(name))
        {
            expected = $"a name of letters, digits, underscores and dots, at most {MaxName} of them";
            return false;
        }

        int dot = name.IndexOf('.', StringComparison.Ordinal);
        string shortName = name[(dot + 1)..];
        SlotKind kind = rest.Length == 2 ? (rest[1] == "jump" ? SlotKind.Jump : SlotKind.Data)
            : s_jumps.Contains(name) ? SlotKind.Jump
            : s_data.Contains(name) ? SlotKind.Data
            : SlotKind.Call;
        slot = new Line(dot < 0 ? "" : name[..dot], shortName, kind, calleeSave);
        return true;
    }

    private static bool IsName(string name) =>
        name.Length is > 0 and <= MaxName
        && name[0] != '.' && name[^1] != '.'
        && name.All(static c => char.IsAsciiLetterOrDigit(c) || c is '_' or '.');

    private static bool TryBuild(
        string name, List<Line> slots, int bits, [NotNullWhen(true)] out OpsLayout? layout, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        CallConvention ordinary = bits == 64 ? CallConvention.KernelSysV : CallConvention.I386RegParm;
        try
        {
            layout = OpsLayout.Create(
                b =>
                {
                    foreach (IGrouping<string, Line> table in slots.GroupBy(static s => s.Table))
                    {
                        b.Table(table.Key, t => AddSlots(t, table), ordinary);
                    }
                },
                name);
            error = null;
            return true;
        }
        catch (PatchException e)
        {
            layout = null;
            error = e.Diagnostic;
            return false;
        }
    }

    private static void AddSlots(OpsTableBuilder table, IEnumerable<Line> slots)
    {
        foreach (Line slot in slots)
        {
            table.Slot(slot.Name, slot.Kind, slot.CalleeSave ? CallConvention.CalleeSave : null);
        }
    }

    private static PatchDiagnostic Bad(int number, string[] words, string expected)
    {
        string found = string.Join(' ', words);
        return PatchDiagnostic.Error(KernelDiagnosticCodes.LayoutBadLine, "a line of the layout cannot be read") with
        {
            Source = $"line {number}",
            Found = found.Length > 100 ? found[..100] + "…" : found,
            Expected = expected,
        };
    }
}
