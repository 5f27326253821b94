using PvPatch.Linux.Eras;
using PvPatch.Linux.Tables;
using PvPatch.Linux.Text;

namespace PvPatch.Linux.BootText;

/// <summary>
/// The records of <c>.altinstructions</c> that are no paravirt sites, and those of the vDSO images. Replacements are taken as they stand
/// in memory: other mechanisms have patched them already.
/// </summary>
/// <remarks>
/// <list type="table">
/// <listheader><term>records of one address</term><description>site</description></listheader>
/// <item><term>one applies (feature xor NOT)</term><description>its replacement, moved, padded, nops merged</description></item>
/// <item><term>several apply, 6.8 and later</term><description>the last one's, over the longest of all</description></item>
/// <item><term>several apply, to 6.7</term><description>one laid over the other, each over its own length</description></item>
/// <item><term>none applies</term><description>what stood there, nops merged</description></item>
/// <item><term>one is a direct call, 6.8 and later</term><description>a paravirt site: left to that mechanism</description></item>
/// </list>
/// </remarks>
internal sealed class AlternativeSites : ITextMechanism
{
    /// <inheritdoc/>
    public TextMechanism Kind => TextMechanism.Alternative;

    /// <inheritdoc/>
    public int Count(TextKernel kernel) =>
        (kernel.TryReadAlternatives(out AltInstrTable? table, out _) ? CountOf(table) : 0)
        + VdsoImages.Find(kernel)
            .Sum(v => v.TryReadAlternatives(kernel, out AltInstrTable? alternatives, out _) ? CountOf(alternatives) : 0);

    /// <inheritdoc/>
    public void Apply(TextRun run)
    {
        if (!run.Kernel.TryReadAlternatives(out AltInstrTable? table, out PatchDiagnostic? error))
        {
            // A kernel without any is one; a table that can't be read is not.
            if (run.Kernel.Elf.TryGetSection(AltInstrTable.SectionName, out _))
            {
                run.Findings.Add(error);
            }

            return;
        }

        if (table.Format == AltInstrFormat.RelativePadded)
        {
            // Older 5.10 merged nops of the padding only, whose length these records have; nobody has compared that with a boot.
            Report(run, table.Count > 0 ? table[0] : default, "the alternatives of this format are patched by rules that are not known",
                table.Format.ToString());
            return;
        }

        AlternativeCode[] codes = [.. run.Kernel.NopChoices(run.State)
            .Select(n => new AlternativeCode(run.Kernel.Rules.Alternatives, run.Kernel.Elf.Bitness, n))];
        if (TryFindOverlap(table, out AltInstr overlapping))
        {
            Report(run, overlapping, "two alternatives overlap without having the same address", $"{overlapping.Length} bytes");
            return;
        }

        Apply(run, table, codes);
        foreach (VdsoImage vdso in VdsoImages.Find(run.Kernel, run.Findings))
        {
            if (vdso.TryReadAlternatives(run.Kernel, out AltInstrTable? alternatives, out error))
            {
                Apply(run, alternatives, codes);
            }
            else
            {
                run.Findings.Add(error);
            }
        }
    }

    private static int CountOf(AltInstrTable table)
    {
        int count = 0;
        foreach (ref readonly AltInstr record in table.Records)
        {
            count += record.IsDirectCall ? 0 : 1;
        }

        return count;
    }

    /// <summary>Looks for a record that begins within another one's bytes; a kernel has none.</summary>
    private static bool TryFindOverlap(AltInstrTable table, out AltInstr overlapping)
    {
        AltInstr[] sorted = table.Records.ToArray();
        Array.Sort(sorted, static (a, b) => a.Address.CompareTo(b.Address));
        VirtualAddress address = default;
        VirtualAddress end = default;
        foreach (AltInstr record in sorted)
        {
            if (record.Length == 0)
            {
                continue;
            }

            if (record.Address != address && record.Address < end)
            {
                overlapping = record;
                return true;
            }

            VirtualAddress own = record.Address + record.Length;
            end = record.Address == address && end > own ? end : own;
            address = record.Address;
        }

        overlapping = default;
        return false;
    }

    private static void Apply(TextRun run, AltInstrTable table, AlternativeCode[] codes)
    {
        AlternativeRules rules = run.Kernel.Rules.Alternatives;
        Span<byte> room = stackalloc byte[2 * byte.MaxValue];
        ReadOnlySpan<AltInstr> records = table.Records;
        for (int i = 0, next; i < records.Length; i = next)
        {
            next = i + 1;
            while (rules.GroupsRecords && next < records.Length && records[next].Address == records[i].Address)
            {
                next++;
            }

            ReadOnlySpan<AltInstr> group = records[i..next];
            if (TryCheck(run, group, out int length, out bool isSite) && !isSite)
            {
                Apply(run, group, length, codes, room);
            }
        }
    }

    /// <summary>Checks the records of one address, those that do not apply too.</summary>
    private static bool TryCheck(TextRun run, ReadOnlySpan<AltInstr> group, out int length, out bool isSite)
    {
        length = 0;
        isSite = false;
        int features = run.State.Features.Values.Count * 32;
        foreach (ref readonly AltInstr record in group)
        {
            length = Math.Max(length, record.Length);
            isSite |= record.IsDirectCall;
        }

        foreach (ref readonly AltInstr record in group)
        {
            string? error = record.ReplacementLength > length ? "the replacement of an alternative is longer than the site"
                : record.ReplacementLength > 0 && run.Text.Find(record.ReplacementAddress, record.ReplacementLength) is null
                    ? "the replacement of an alternative is not in the text"
                : features > 0 && record.Feature >= features ? "an alternative asks for a feature beyond the machine's words"
                : isSite && !run.Kernel.Rules.Alternatives.DirectCallsAreSites
                    ? "an alternative takes its target from the ops table, as kernels from 6.8 on do"
                : null;
            if (error is not null)
            {
                Report(run, record, error, $"feature {record.Feature / 32}*32+{record.Feature % 32}, "
                    + $"{record.ReplacementLength} bytes at {record.ReplacementAddress} for {length}");
                return false;
            }
        }

        if (length > 0 && run.Text.Find(group[0].Address, length) is null)
        {
            run.ReportOutside(TextMechanism.Alternative, group[0].Address, length);
            return false;
        }

        return length > 0;
    }

    private static void Apply(TextRun run, ReadOnlySpan<AltInstr> group, int length, AlternativeCode[] codes, Span<byte> room)
    {
        // What stands there is what the last record makes that applies, else the original: each is tried that may be.
        VirtualAddress site = group[0].Address;
        Span<byte> code = room[..length];
        Span<byte> other = room.Slice(byte.MaxValue, length);
        bool isFirst = true;
        bool isOpen = false;
        bool isReplaced = false;
        for (int i = group.Length - 1; i >= -1 && !isOpen; i--)
        {
            bool? applies = i < 0 ? true : run.State.Features.Has(group[i].Feature) ^ group[i].IsNot;
            if (applies == false)
            {
                continue;
            }

            AltInstr? applied = i < 0 ? null : group[i];
            isReplaced = isFirst && i >= 0 && applies == true;
            isOpen = run.Text.HasOpen(applied?.ReplacementAddress ?? site, applied?.ReplacementLength ?? length);
            foreach (AlternativeCode maker in codes)
            {
                if (!TryMake(run, maker, applied, site, isFirst ? code : other))
                {
                    return;
                }

                isOpen |= !isFirst && !other.SequenceEqual(code);
                isFirst = false;
            }

            if (applies == true)
            {
                break;
            }
        }

        // Bytes that the state leaves open stay so, wherever they go. What was like that before stays whose it was.
        if (isOpen)
        {
            run.LeaveOpen(site, length, TextMechanism.Alternative);
        }
        else if (isReplaced || !run.Text.TryGet(site, length, out ReadOnlySpan<byte> there) || !there.SequenceEqual(code))
        {
            run.Write(site, code, TextMechanism.Alternative);
        }
    }

    private static bool TryMake(TextRun run, AlternativeCode maker, AltInstr? applied, VirtualAddress site, Span<byte> code)
    {
        if (applied is not AltInstr record)
        {
            bool there = run.Text.TryGet(site, code.Length, out ReadOnlySpan<byte> original);
            original.CopyTo(code);
            maker.MergeNops(code);
            return there;
        }

        ReadOnlySpan<byte> replacement = default;
        _ = record.ReplacementLength > 0 && run.Text.TryGet(record.ReplacementAddress, record.ReplacementLength, out replacement);
        if (maker.TryApply(replacement, record.ReplacementAddress, site, code))
        {
            return true;
        }

        run.ReportOutOfReach(TextMechanism.Alternative, site, record.ReplacementAddress);
        return false;
    }

    private static void Report(TextRun run, in AltInstr record, string message, string found) =>
        run.Findings.Add(PatchDiagnostic.Error(KernelDiagnosticCodes.AlternativeUnknown, message) with
        {
            Address = record.Address,
            Found = found,
            Expected = "a replacement in the text that fits its site, and a feature of the machine",
        });
}
