using PvPatch.Linux.Eras;
using PvPatch.Linux.Tables;
using PvPatch.Linux.Text;
using PvPatch.Machine;

namespace PvPatch.Linux.BootText;

/// <summary>
/// The features of the machine, inferred from the alternatives in its text: which settings of the features that an address asks for give
/// the bytes that stand there.
/// </summary>
/// <remarks>
/// An address of which all such settings have a feature on, or all off, has a vote on it; one whose bytes no setting gives has none. What
/// no address decides stays unknown, and changes no byte of the text that was read.
/// </remarks>
internal sealed class FeatureVotes
{
    private const int MostFeatures = 6; // of one address: 64 settings
    private const int MostWords = 64;

    private readonly TextEvidence _seen;
    private readonly TextImage _text;
    private readonly AlternativeCode _code;
    private readonly AlternativeRules _rules;
    private readonly Dictionary<int, bool> _fixed;
    private readonly Ballot<int, bool> _ballot = new();

    private FeatureVotes(TextEvidence seen, TextImage text, NopStyle nops, Dictionary<int, bool> fixedFeatures)
    {
        _seen = seen;
        _text = text;
        _rules = seen.Kernel.Rules.Alternatives;
        _code = new AlternativeCode(_rules, seen.Kernel.Elf.Bitness, nops);
        _fixed = fixedFeatures;
    }

    /// <summary>Infers the features.</summary>
    /// <param name="seen">The text.</param>
    /// <param name="state">What is known besides features: the return thunk, nops.</param>
    /// <param name="rethunk">Whether returns go through a thunk.</param>
    /// <param name="counted">Whether calls are counted.</param>
    public static FeatureWords Infer(TextEvidence seen, BootState state, bool? rethunk, bool? counted)
    {
        if (!seen.Kernel.TryReadAlternatives(out AltInstrTable? table, out _))
        {
            return FeatureWords.Unknown;
        }

        var known = new Dictionary<int, bool> { [FeatureWords.Always] = true };
        Add(known, ReturnForm.Rethunk, rethunk);
        if (seen.Kernel.HasCallSites)
        {
            Add(known, MitigationFeatures.CallDepth, counted);
        }

        Add(known, XenIretPatch.XenPv, IsXen(seen));
        NopStyle nops = seen.Kernel.NopChoices(state)[0];

        // Replacements hold returns and retpolines, which are patched before. The features of those are asked for at the retpolines, which
        // hold neither; so they come first.
        var first = new FeatureVotes(seen, TextImage.Of(seen.Kernel.Elf), nops, known);
        first.Walk(table);
        FeatureWords words = first.Words(table);
        var run = new TextRun(
            seen.Kernel,
            new BootState { Features = words, ReturnThunk = state.ReturnThunk, Nops = state.Nops },
            TextImage.Of(seen.Kernel.Elf), new DiagnosticList());
        foreach (TextMechanism kind in (ReadOnlySpan<TextMechanism>)[TextMechanism.Retpoline, TextMechanism.Return])
        {
            TextPredictor.Find(kind)?.Apply(run);
        }

        var second = new FeatureVotes(seen, run.Text, nops, known);
        second.Walk(table);
        return second.Words(table);
    }

    /// <summary>Under Xen the jump at a place leads to another place than in the file.</summary>
    private static bool? IsXen(TextEvidence seen) =>
        seen.Kernel.Symbol("early_xen_iret_patch") is VirtualAddress address && seen.TryGet(address, 5, out ReadOnlySpan<byte> bytes)
        && bytes[0] == BranchBytes.Jump ? BranchBytes.Target(address, bytes) != address + 5 : null;

    private static void Add(Dictionary<int, bool> known, int feature, bool? value)
    {
        if (value is bool one)
        {
            known[feature] = one;
        }
    }

    private FeatureWords Words(AltInstrTable table)
    {
        int most = _fixed.Keys.Max();
        foreach (ref readonly AltInstr record in table.Records)
        {
            most = Math.Max(most, record.Feature);
        }

        int count = Math.Min((most / 32) + 1, MostWords);
        uint[] values = new uint[count];
        uint[] known = new uint[count];
        foreach (int feature in _ballot.Things.Concat(_fixed.Keys).Where(f => f / 32 < count))
        {
            if (_fixed.TryGetValue(feature, out bool value) || _ballot.TryGetWinner(feature, out value))
            {
                known[feature / 32] |= 1u << (feature % 32);
                values[feature / 32] |= value ? 1u << (feature % 32) : 0;
            }
        }

        return new FeatureWords(values, known);
    }

    private void Walk(AltInstrTable table)
    {
        ReadOnlySpan<AltInstr> records = table.Records;
        for (int i = 0, next; i < records.Length; i = next)
        {
            for (next = i + 1; next < records.Length && records[next].Address == records[i].Address; next++)
            {
            }

            Vote(records[i..next]);
        }
    }

    private void Vote(ReadOnlySpan<AltInstr> group)
    {
        int length = 0;
        bool isSite = _seen.Kernel.Image.Sites.IndexOf(group[0].Address) >= 0;
        Span<int> features = stackalloc int[MostFeatures];
        int count = 0;
        foreach (ref readonly AltInstr record in group)
        {
            length = Math.Max(length, record.Length);
            if (_fixed.ContainsKey(record.Feature) || features[..count].Contains(record.Feature))
            {
                continue;
            }

            if (count == MostFeatures)
            {
                return;
            }

            features[count++] = record.Feature;
        }

        if (count == 0 || length == 0 || !_seen.TryGet(group[0].Address, length, out ReadOnlySpan<byte> there)
            || !_text.TryGet(group[0].Address, length, out ReadOnlySpan<byte> original))
        {
            return;
        }

        int on = 0; // of settings that fit: features on in all, off in all
        int off = 0;
        bool fits = false;
        Span<byte> code = stackalloc byte[byte.MaxValue];
        for (int setting = 0; setting < 1 << count; setting++)
        {
            if (TryMake(group, features[..count], setting, original, code[..length], isSite, out bool isCall)
                && (isCall ? IsCall(there) : IsSame(code[..length], there)))
            {
                on = fits ? on & setting : setting;
                off = fits ? off & ~setting : ~setting;
                fits = true;
            }
        }

        for (int i = 0; i < count && fits; i++)
        {
            if (((on | off) >> i & 1) != 0)
            {
                _ballot.Vote(features[i], (on >> i & 1) != 0);
            }
        }
    }

    /// <summary>
    /// What the records of an address give with a setting of its features, a bit each; or that it is the paravirt site's own call, or the
    /// nop in its place, whatever its bytes.
    /// </summary>
    private bool TryMake(
        ReadOnlySpan<AltInstr> group, ReadOnlySpan<int> features, int setting, ReadOnlySpan<byte> original, Span<byte> code, bool isSite,
        out bool isCall)
    {
        isCall = isSite;
        int length = code.Length;
        original.CopyTo(code);
        _code.MergeNops(code);
        foreach (ref readonly AltInstr record in group)
        {
            int index = features.IndexOf(record.Feature);
            bool has = index >= 0 ? (setting >> index & 1) != 0 : _fixed[record.Feature];
            int own = _rules.GroupsRecords ? length : record.Length;
            if (has == record.IsNot)
            {
                if (!_rules.GroupsRecords)
                {
                    _code.MergeNops(code[..own]);
                }

                continue;
            }

            isCall = isSite && record.IsDirectCall;
            if (isCall)
            {
                continue;
            }

            ReadOnlySpan<byte> replacement = default;
            if (record.ReplacementLength > own || (record.ReplacementLength > 0
                && !_text.TryGet(record.ReplacementAddress, record.ReplacementLength, out replacement))
                || !_code.TryApply(replacement, record.ReplacementAddress, record.Address, code[..own]))
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>A direct call, or the nop that the call of an empty function becomes.</summary>
    private static bool IsCall(ReadOnlySpan<byte> there) =>
        there[0] == BranchBytes.Call || there[0] == 0xff || there is [0x66, 0x0f, 0x1f, ..];

    /// <summary>Equal but for what is written later: lock prefixes, and calls that go to the thunk of their target.</summary>
    private static bool IsSame(ReadOnlySpan<byte> code, ReadOnlySpan<byte> there)
    {
        bool isCall = code.Length >= 5 && code[0] == BranchBytes.Call && there[0] == BranchBytes.Call;
        int start = isCall && BranchBytes.Target(0, code).Value - BranchBytes.Target(0, there).Value == CallThunks.ThunkSize ? 5 : 0;
        for (int i = start; i < code.Length; i++)
        {
            if (code[i] != there[i] && !(code[i] == 0xf0 && there[i] == 0x3e))
            {
                return false;
            }
        }

        return true;
    }
}
