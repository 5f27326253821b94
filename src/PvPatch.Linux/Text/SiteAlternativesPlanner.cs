using System.Buffers.Binary;
using PvPatch.Linux.Eras;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tables;
using PvPatch.Plans;

namespace PvPatch.Linux.Text;

/// <summary>
/// Plans the alternatives that have the address of a paravirt site, for code as the paravirt patcher left it: a mechanism of its
/// own, which yields a plan to be laid over the other one.
/// </summary>
internal sealed class SiteAlternativesPlanner
{
    private readonly ElfImage _elf;
    private readonly AlternativeRules _rules;
    private readonly Func<int, bool?> _hasFeature;
    private readonly AlternativeCode _code;
    private readonly Dictionary<(int Feature, bool Not), string> _details = [];

    /// <param name="elf">The image, for the replacements' bytes.</param>
    /// <param name="rules">Rules of the era's alternatives.</param>
    /// <param name="hasFeature">Whether the machine has a feature; <see langword="null"/> where that is not known.</param>
    public SiteAlternativesPlanner(ElfImage elf, AlternativeRules rules, Func<int, bool?> hasFeature)
    {
        _elf = elf;
        _rules = rules;
        _hasFeature = hasFeature;
        _code = new AlternativeCode(rules, elf.Bitness);
    }

    /// <summary>Makes the plan; its old bytes are the new ones of <paramref name="below"/>.</summary>
    /// <exception cref="PatchException">An alternative at a site has a form or condition that is not known (PV6105).</exception>
    public PatchPlan Plan(PatchPlan below, AltInstrTable table)
    {
        // The walk over some ten thousand records is most of the work of planning a kernel: no search through the plan itself, and
        // nothing kept of the records that are the sites.
        ulong[] lasts = new ulong[below.Count];
        for (int i = 0; i < lasts.Length; i++)
        {
            lasts[i] = below[i].Address.Value + (ulong)(below[i].Length - 1);
        }

        var results = new (byte[]? Bytes, PlanOutcome? Outcome)[below.Count];
        int changed = 0;
        foreach (ref readonly AltInstr record in table.Records)
        {
            // Not only the site at the address: an alternative may begin before a site and reach into it.
            int index = Array.BinarySearch(lasts, record.Address.Value);
            index = index < 0 ? ~index : index;
            if (index == lasts.Length || record.Length == 0)
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

            if (IsSite(record))
            {
                continue; // what it does is in the plan below
            }

            ref (byte[]? Bytes, PlanOutcome? Outcome) result = ref results[index];
            changed += result.Bytes is null ? 1 : 0;
            result = Apply(record, result.Bytes ?? site.NewBytes.ToArray(), result.Outcome ?? site.Outcome);
        }

        var plan = new PlanBuilder(below.Backend, below.Rules, below.Bitness, below.Segments, changed);
        for (int i = 0; i < results.Length; i++)
        {
            if (results[i] is ({ } bytes, { } outcome))
            {
                plan.Add(below[i].Address, below[i].NewBytes, bytes, outcome);
            }
        }

        return plan.Build();
    }

    /// <summary>Whether a record is a paravirt site itself; in eras where none is, throws for those that look so.</summary>
    private bool IsSite(in AltInstr record) => record.IsDirectCall && (_rules.DirectCallsAreSites
        ? true
        : throw Unknown(
            record, "an alternative at a paravirt site takes its target from the ops table, as kernels from 6.8 on do", "a direct call"));

    private (byte[] Bytes, PlanOutcome Outcome) Apply(in AltInstr record, byte[] bytes, PlanOutcome outcome)
    {
        bool applies = (
            _hasFeature(record.Feature) ?? throw Unknown(record, "the condition of an alternative at a paravirt site is not known",
            $"feature {record.Feature / 32}*32+{record.Feature % 32}")) != record.IsNot;
        if (!applies)
        {
            _code.MergeNops(bytes);
            return (bytes, outcome);
        }

        ReadOnlySpan<byte> replacement = Replacement(record);
        if (!_code.TryApply(replacement, record.ReplacementAddress, record.Address, record.Length, out byte[]? moved))
        {
            throw Unknown(record, "the replacement of an alternative refers to something that is out of reach of the site",
                HexBytes.Format(replacement));
        }

        VirtualAddress? target = replacement.Length == 5 && replacement[0] is 0xe8 or 0xe9
            ? record.ReplacementAddress + (replacement.Length + BinaryPrimitives.ReadInt32LittleEndian(replacement[1..]))
            : null;
        return (moved, outcome with
        {
            Action = replacement.Length == 0 ? PatchAction.Nop : target is null ? PatchAction.Inline : replacement[0] == 0xe8
                ? PatchAction.Call : PatchAction.Jump,
            Reason = PatchReason.None,
            Target = target,
            TargetName = target is not null && target == outcome.Target ? outcome.TargetName : null,
            Detail = Detail(record),
        });
    }

    private ReadOnlySpan<byte> Replacement(in AltInstr record)
    {
        if (record.ReplacementLength == 0)
        {
            return default;
        }

        return record.ReplacementLength <= record.Length
            && _elf.TryGetBytes(record.ReplacementAddress, record.ReplacementLength, out Memory<byte> bytes)
            ? bytes.Span
            : throw Unknown(record, "the replacement of an alternative is not in the image, or longer than the site",
                $"{record.ReplacementAddress}+{record.ReplacementLength}");
    }

    private string Detail(in AltInstr record)
    {
        (int, bool) condition = (record.Feature, record.IsNot);
        return _details.TryGetValue(condition, out string? text) ? text
            : _details[condition] = $"alternative of {(record.IsNot ? "!" : "")}{FeatureName(record.Feature)}";
    }

    private string FeatureName(int feature) =>
        feature == _rules.XenPv ? "XENPV" : feature == _rules.PvUnlock ? "PVUNLOCK" : feature == _rules.VcpuPreempt
            ? "VCPUPREEMPT" : $"{feature}";

    private static PatchException Unknown(in AltInstr record, string message, string found) =>
        new(PatchDiagnostic.Error(KernelDiagnosticCodes.AlternativeUnknown, message) with
        {
            Address = record.Address,
            Found = found,
            Expected = "a condition on XENPV, PVUNLOCK or VCPUPREEMPT over the whole site",
        });
}
