using System.Buffers.Binary;
using PvPatch.Linux.Alternatives;
using PvPatch.Linux.Elf;
using PvPatch.Plans;

namespace PvPatch.Linux.Kernel;

/// <summary>
/// Plans the alternatives that have the address of a paravirt site, for code as the paravirt patcher left it: a mechanism of its
/// own, which yields a plan to be laid over the other one.
/// </summary>
internal sealed class SiteAlternativesPlanner
{
    private readonly ElfImage _elf;
    private readonly AlternativeRules _rules;
    private readonly Func<int, bool?> _hasFeature;

    /// <param name="elf">The image, for the replacements' bytes.</param>
    /// <param name="rules">How the era's alternatives work.</param>
    /// <param name="hasFeature">Whether the machine has a feature; <see langword="null"/> where that is not known.</param>
    public SiteAlternativesPlanner(ElfImage elf, AlternativeRules rules, Func<int, bool?> hasFeature)
    {
        _elf = elf;
        _rules = rules;
        _hasFeature = hasFeature;
    }

    /// <summary>Makes the plan; its old bytes are the new ones of <paramref name="below"/>.</summary>
    /// <exception cref="PatchException">An alternative at a site has a form or condition that is not known (PV6105).</exception>
    public PatchPlan Plan(PatchPlan below, AltInstrTable table)
    {
        var results = new SortedDictionary<int, (byte[] Bytes, PlanOutcome Outcome)>();
        foreach (ref readonly AltInstr record in table.Records)
        {
            int index = FirstSiteEndingBehind(below, record.Address);
            if (index == below.Count || record.Length == 0)
            {
                continue;
            }

            SiteDecision site = below[index];
            if (site.Address > record.Address && site.Address.Value - record.Address.Value >= record.Length)
            {
                continue; // it ends before the site
            }

            if (site.Address != record.Address || site.Length != record.Length)
            {
                throw Unknown(record, "an alternative overlaps a paravirt site without being the same", $"{site.Address}+{site.Length}");
            }

            byte[] bytes = results.TryGetValue(index, out (byte[] Bytes, PlanOutcome Outcome) known) ? known.Bytes : site.NewBytes.ToArray();
            results[index] = Apply(record, bytes, known.Outcome ?? site.Outcome);
        }

        var plan = new PlanBuilder(below.Backend, below.Rules, below.Bitness, below.Segments, results.Count);
        foreach ((int index, (byte[] bytes, PlanOutcome outcome)) in results)
        {
            plan.Add(below[index].Address, below[index].NewBytes, bytes, outcome);
        }

        return plan.Build();
    }

    // Not only the site at the address: an alternative may begin before a site and reach into it.
    private static int FirstSiteEndingBehind(PatchPlan plan, VirtualAddress address)
    {
        int low = 0;
        int high = plan.Count;
        while (low < high)
        {
            int middle = low + ((high - low) / 2);
            VirtualAddress last = plan[middle].Address + (plan[middle].Length - 1);
            if (last < address)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        return low;
    }

    private (byte[] Bytes, PlanOutcome Outcome) Apply(in AltInstr record, byte[] bytes, PlanOutcome outcome)
    {
        if (record.IsDirectCall)
        {
            throw Unknown(record, "an alternative at a paravirt site takes its target from the ops table, as kernels from 6.8 on do", "a direct call");
        }

        bool applies = (_hasFeature(record.Feature) ?? throw Unknown(record, "the condition of an alternative at a paravirt site is not known", $"feature {record.Feature / 32}*32+{record.Feature % 32}")) != record.IsNot;
        if (applies)
        {
            byte[] replacement = Replacement(record, out VirtualAddress? target);
            bytes = new byte[record.Length];
            bytes.AsSpan().Fill(0x90);
            replacement.CopyTo(bytes, 0);
            bool nothing = replacement.Length == 0;
            outcome = outcome with
            {
                Action = nothing ? PatchAction.Nop : target is null ? PatchAction.Inline : PatchAction.Call,
                Reason = PatchReason.None,
                Target = target,
                TargetName = target is not null && target == outcome.Target ? outcome.TargetName : null,
                Detail = $"alternative of {(record.IsNot ? "!" : "")}{FeatureName(record.Feature)}",
            };
        }

        OptimizeNops(bytes);
        return (bytes, outcome);
    }

    /// <summary>The replacement as it has to stand at the site, and where it calls if it is one call.</summary>
    private byte[] Replacement(in AltInstr record, out VirtualAddress? target)
    {
        target = null;
        if (record.ReplacementLength == 0)
        {
            return [];
        }

        if (!_elf.TryGetBytes(record.ReplacementAddress, record.ReplacementLength, out Memory<byte> bytes) || record.ReplacementLength > record.Length)
        {
            throw Unknown(record, "the replacement of an alternative is not in the image, or longer than the site", $"{record.ReplacementAddress}+{record.ReplacementLength}");
        }

        byte[] copy = bytes.ToArray();
        if (copy.Length == 5 && copy[0] == 0xe8)
        {
            // call rel32: the displacement was made for where the replacement lies
            target = record.ReplacementAddress + (copy.Length + BinaryPrimitives.ReadInt32LittleEndian(copy.AsSpan(1)));
            long displacement = target.Value - (record.Address + copy.Length);
            if (displacement != (int)displacement)
            {
                throw Unknown(record, "the replacement of an alternative calls a function that is out of reach of the site", $"{target}");
            }

            BinaryPrimitives.WriteInt32LittleEndian(copy.AsSpan(1), (int)displacement);
        }
        else if (copy.Length == 5 && copy[0] is 0xe9 or 0xeb)
        {
            throw Unknown(record, "the replacement of an alternative at a paravirt site is a jump", HexBytes.Format(copy));
        }

        return copy;
    }

    /// <summary>
    /// Every run of two or more one-byte nops becomes the fewest nops; a single one stays. Only whole instructions count, so a 0x90
    /// within an operand is safe.
    /// </summary>
    private void OptimizeNops(byte[] bytes)
    {
        var decoder = Iced.Intel.Decoder.Create(_elf.Bitness, bytes);
        int start = -1;
        while (decoder.IP < (ulong)bytes.Length)
        {
            int at = (int)decoder.IP;
            decoder.Decode(out Iced.Intel.Instruction instruction);
            bool nop = bytes[at] == 0x90 && instruction.Length == 1;
            start = nop ? (start < 0 ? at : start) : start;
            int end = nop ? at + 1 : at;
            if (start >= 0 && (!nop || end == bytes.Length))
            {
                if (end - start > 1)
                {
                    _rules.Nops.Fill(bytes.AsSpan(start, end - start));
                }

                start = -1;
            }

            if (instruction.IsInvalid)
            {
                return; // as the kernel's: what does not decode is left as it is
            }
        }
    }

    private string FeatureName(int feature) =>
        feature == _rules.XenPv ? "XENPV" : feature == _rules.PvUnlock ? "PVUNLOCK" : feature == _rules.VcpuPreempt ? "VCPUPREEMPT" : $"{feature}";

    private static PatchException Unknown(in AltInstr record, string message, string found) =>
        new(PatchDiagnostic.Error(KernelDiagnosticCodes.AlternativeUnknown, message) with
        {
            Address = record.Address,
            Found = found,
            Expected = "a condition on XENPV, PVUNLOCK or VCPUPREEMPT over the whole site",
        });
}
