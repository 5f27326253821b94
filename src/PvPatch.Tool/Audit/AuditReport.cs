using PvPatch.Analysis;
using PvPatch.Linux;
using PvPatch.Linux.Audit;
using PvPatch.Plans;

namespace PvPatch.Tool.Audit;

/// <summary>The audited sites of one backend, counted.</summary>
internal sealed class AuditReport(KernelImage image, PatchPlan plan, IReadOnlyList<AuditedSite> sites, IReadOnlyList<AuditedSlot> slots)
{
    private readonly KernelNames _names = new(image);

    public PatchPlan Plan => plan;

    public IReadOnlyList<AuditedSite> Sites => sites;

    public IReadOnlyList<AuditedSlot> Slots => slots;

    /// <summary>Slots whose function destroys what their convention keeps.</summary>
    public IEnumerable<AuditedSlot> BrokenSlots => slots.Where(static s => !s.Breaks.IsEmpty);

    public int Proved => Count(AuditVerdict.Proved);

    public int Undecided => Count(AuditVerdict.Undecided);

    public int Contradictions => Count(AuditVerdict.Contradiction);

    /// <summary>Sites at which something destroys what the convention of their slot keeps.</summary>
    public int Broken => sites.Count(static s => !s.Breaks.IsEmpty);

    /// <summary>Why sites are undecided, most frequent first.</summary>
    public IEnumerable<(string Cause, int Count)> Causes() => sites
        .Where(static s => s.Verdict == AuditVerdict.Undecided)
        .GroupBy(Cause)
        .Select(static g => (g.Key, g.Count()))
        .OrderByDescending(static c => c.Item2)
        .ThenBy(static c => c.Key, StringComparer.Ordinal);

    /// <summary>Why a site is not proved, in a few words.</summary>
    public static string Cause(AuditedSite site) => site switch
    {
        { Undecided: not null } => "what is called there could not be followed",
        { Use.Kind: RegisterUseKind.Instruction } when site.Verdict == AuditVerdict.Undecided =>
            "part of the register was written in between",
        { Use.Kind: RegisterUseKind.Instruction } => "an instruction reads it",
        { Use.Kind: RegisterUseKind.Return } => "the function returns, and its caller may read it",
        { Use.Kind: RegisterUseKind.Push } => "it is pushed",
        _ => "code that is not known may read it",
    };

    /// <summary>The code from a place on as far as the read, block by block.</summary>
    public IReadOnlyList<string> Way(RegisterUse use)
    {
        var lines = new List<string>();
        var disassembler = new Disassembler(image.Bitness, _names.NameOf);
        foreach (VirtualAddress block in use.Path)
        {
            bool last = block == use.Path[^1];
            VirtualAddress at = block;
            for (int i = 0; i < 12; i++)
            {
                if (!image.Code.TryGetBytes(at, 1, out _))
                {
                    break;
                }

                int length = 15;
                while (length > 1 && !image.Code.TryGetBytes(at, length, out _))
                {
                    length--;
                }

                InstructionText instruction = disassembler.Decode(image.Code.GetBytes(at, length), at)[0];
                lines.Add($"{at} {instruction.Text}");
                if (last ? at == use.Address : i == 3)
                {
                    break;
                }

                at += instruction.Length;
            }
        }

        return lines;
    }

    private int Count(AuditVerdict verdict) => sites.Count(s => s.Verdict == verdict);
}
