using System.Diagnostics.CodeAnalysis;
using Iced.Intel;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Records;

/// <summary>Plans changes of an image's recorded sites. Writes nothing.</summary>
/// <remarks>
/// <code>
/// records        looked at where            the site may hold                     it gets
/// ops            a backend is used          as PatchPlanner                       as PatchPlanner
/// static key     its key is named           the nop, the jump                     see BranchCode
/// branch         its branch is named        the nop, a jump to one of its ways    see BranchCode
/// static call    its call is named          nop, ret, xor eax,eax, a branch       see StaticCallCode
/// variants       a backend of that name     any variant's code, moved             that variant's code, moved, and nops
/// alternatives   features are given         anything                              the last one that applies, moved, and nops
/// </code>
/// What a site holds is its old bytes; where the previous plan put them there, its old bytes are.
/// </remarks>
internal sealed partial class RecordPlanner
{
    private readonly SiteRecords _records;
    private readonly CodeImage _image;
    private readonly RecordChanges _changes;
    private readonly PlanOptions _options;
    private readonly DiagnosticList _found = new();
    private readonly PlanBuilder _plan;
    private readonly HashSet<VirtualAddress> _planned = [];

    public RecordPlanner(SiteRecords records, CodeImage image, RecordChanges changes, PlanOptions options)
    {
        _records = records;
        _image = image;
        _changes = changes;
        _options = options;
        _plan = new PlanBuilder(changes.Description, options.Rules.Name, image) { Previous = options.Previous };
    }

    private int Bitness => _image.Bitness;

    public bool TryRun([NotNullWhen(true)] out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics)
    {
        plan = null;
        PatchPlan? operations = null;
        if (_changes.Backend is Backend backend)
        {
            // Each mechanism's part of the plan before this one: sites of others are unknown to the planner of operations.
            PlanOptions options = _options with
            {
                SlotAddresses = _options.SlotAddresses ?? _records.SlotAddresses(backend.Layout.Count),
                SlotFunctions = _options.SlotFunctions ?? _records.SlotFunctions(backend.Layout.Count),
            };
            if (!new PatchPlanner().TryPlan(_image, _records.Sites, backend, options, out operations, out diagnostics))
            {
                return false;
            }
        }

        CheckNames();
        PlanKeys();
        PlanBranches();
        PlanCalls();
        PlanRegions();
        if (!_found.HasErrors)
        {
            CarryOn(operations);
            try
            {
                PatchPlan others = _plan.Build();
                plan = operations is null ? others : PlanComposer.Compose(operations, others);
            }
            catch (PatchException e)
            {
                _found.Add(e.Diagnostic); // records share no byte: the previous plan is of another table
            }
        }

        diagnostics = plan?.Diagnostics ?? _found.ToList();
        return plan is not null;
    }

    /// <summary>
    /// Takes over what the previous plan did at sites that the changes do not name: a revert is to take that back too. Not where it was
    /// taken back already, for the site would be changed again.
    /// </summary>
    private void CarryOn(PatchPlan? operations)
    {
        for (int i = 0; i < (_options.Previous?.Count ?? 0); i++)
        {
            SiteDecision before = _options.Previous![i];
            bool isBack = _image.TryGetBytes(before.Address, before.Length, out Span<byte> there) && there.SequenceEqual(before.OldBytes);
            if (!isBack && !_planned.Contains(before.Address) && (operations?.IndexContaining(before.Address) ?? -1) < 0)
            {
                _plan.Add(before.Address, before.OldBytes, before.NewBytes, before.Outcome);
            }
        }
    }

    private void Add(VirtualAddress address, ReadOnlySpan<byte> original, ReadOnlySpan<byte> bytes, PlanOutcome outcome)
    {
        _plan.Add(address, original, bytes, outcome);
        _planned.Add(address);
    }

    private void CheckNames()
    {
        Check("static key", _changes.Keys.Keys, _records.StaticKeys.Select(static r => r.Key));
        Check("multiway branch", _changes.Branches.Keys, _records.MultiBranches.Select(static r => r.Branch));
        Check("static call", _changes.Calls.Keys, _records.StaticCalls.Select(static r => r.Key));

        void Check(string what, IEnumerable<string> named, IEnumerable<string?> recorded)
        {
            string[] known = [.. recorded.OfType<string>().Distinct().Order(StringComparer.Ordinal)];
            foreach (string name in named.Except(known))
            {
                _found.Add(PatchDiagnostic.Error(DiagnosticCodes.RecordNameUnknown, $"no record names the {what} \"{name}\"") with
                {
                    Found = name,
                    Help = NameSuggestion.Help(name, known),
                });
            }
        }
    }

    private void PlanKeys()
    {
        foreach (StaticKeyRecord record in _records.StaticKeys)
        {
            if (record.Key is not string key || !_changes.Keys.TryGetValue(key, out bool on))
            {
                continue;
            }

            bool reaches = BranchCode.TryEncode(record.Address, record.Length, record.Target, out SiteBytes jump, Bitness);
            SiteBytes nop = BranchCode.Nop(record.Length, Bitness);
            bool jumps = on != record.IsLikely;
            if (!reaches && jumps)
            {
                Refuse(DiagnosticCodes.RecordUnfit, record.Address, $"the label of \"{key}\" is out of reach", record.Target.ToString());
            }
            else if (TryRead(record.Address, record.Length, key, b => b.SequenceEqual(nop.ToArray(record.Length))
                || b.SequenceEqual(jump.ToArray(record.Length)), out ReadOnlySpan<byte> old))
            {
                Add(record.Address, old, (jumps ? jump : nop).ToArray(record.Length), new PlanOutcome
                {
                    Label = key,
                    Action = jumps ? PatchAction.Jump : PatchAction.Nop,
                    Target = jumps ? record.Target : null,
                    Detail = on ? "on" : "off",
                });
            }
        }
    }

    private void PlanBranches()
    {
        foreach (MultiBranchRecord record in _records.MultiBranches)
        {
            if (record.Branch is not string branch || !_changes.Branches.TryGetValue(branch, out int? way))
            {
                continue;
            }

            if (way >= record.Labels.Count)
            {
                Refuse(DiagnosticCodes.RecordUnfit, record.Address, $"\"{branch}\" has no way {way}", $"{record.Labels.Count} ways");
                continue;
            }

            VirtualAddress? label = way is int number ? record.Labels[number] : null;
            if (!BranchCode.TryEncode(record.Address, record.Length, label, out SiteBytes bytes, Bitness))
            {
                Refuse(DiagnosticCodes.RecordUnfit, record.Address, $"a label of \"{branch}\" is out of reach", label.ToString());
            }
            else if (TryRead(record.Address, record.Length, branch, b => IsBranch(record, b), out ReadOnlySpan<byte> old))
            {
                Add(record.Address, old, bytes.ToArray(record.Length), new PlanOutcome
                {
                    Label = branch,
                    Action = label is null ? PatchAction.Nop : PatchAction.Jump,
                    Target = label,
                    Detail = way is null ? "falls through" : $"way {way}",
                });
            }
        }
    }

    /// <summary>Whether bytes are one of those a site of a multiway branch may hold.</summary>
    private bool IsBranch(MultiBranchRecord record, ReadOnlySpan<byte> bytes)
    {
        bool known = false;
        foreach (VirtualAddress? label in record.Labels.Append(null))
        {
            known |= BranchCode.TryEncode(record.Address, record.Length, label, out SiteBytes form, Bitness)
                && bytes.SequenceEqual(form.ToArray(record.Length));
        }

        return known;
    }

    private void PlanCalls()
    {
        foreach (StaticCallRecord record in _records.StaticCalls)
        {
            if (record.Key is not string call || !_changes.Calls.TryGetValue(call, out long target))
            {
                continue;
            }

            StaticCallForm form = record.Condition is not null ? StaticCallForm.ConditionalTailCall
                : record.IsTailCall ? StaticCallForm.TailCall : StaticCallForm.Call;
            ConditionCode condition = record.Condition is int number ? StaticCallCode.ConditionOf(number) : ConditionCode.None;
            var entry = new VirtualAddress(unchecked((ulong)target));
            if (!TryEncode(form, condition, record.Address, target, entry, out PatchAction action, out SiteBytes bytes))
            {
                Refuse(DiagnosticCodes.RecordUnfit, record.Address, $"the target of \"{call}\" is out of reach", entry.ToString());
            }
            else if (TryRead(record.Address, record.Length, call, b => IsCall(form, condition, b), out ReadOnlySpan<byte> old))
            {
                bool branches = action is PatchAction.Call or PatchAction.Jump;
                Add(record.Address, old, bytes.ToArray(record.Length), new PlanOutcome
                {
                    Label = call,
                    Action = action,
                    Target = branches ? entry : null,
                });
            }
        }
    }

    private bool TryEncode(StaticCallForm form, ConditionCode condition, VirtualAddress site, long target, VirtualAddress entry,
        out PatchAction action, out SiteBytes bytes)
    {
        action = PatchAction.Inline;
        return StaticCallCode.TryEncodeInImage(form, condition, target, out bytes)
            || StaticCallCode.TryEncode(form, condition, site, target, entry, out action, out bytes, Bitness);
    }

    /// <summary>
    /// Whether bytes are one of those a site of a static call may hold: its branch, wherever that leads, or what needs none.
    /// </summary>
    private bool IsCall(StaticCallForm form, ConditionCode condition, ReadOnlySpan<byte> bytes)
    {
        foreach (long target in (ReadOnlySpan<long>)[StaticCallCode.Null, StaticCallCode.Zero, 1])
        {
            _ = TryEncode(form, condition, 1, target, 1, out PatchAction action, out SiteBytes known);
            int same = action is PatchAction.Call or PatchAction.Jump ? bytes.Length - sizeof(int) : bytes.Length;
            if (bytes[..same].SequenceEqual(known.ToArray(bytes.Length).AsSpan(0, same)))
            {
                return true;
            }
        }

        return false;
    }

    private delegate bool Known(ReadOnlySpan<byte> bytes);

    /// <summary>Reads a site, and gives its original bytes.</summary>
    private bool TryRead(VirtualAddress address, int length, string label, Known isKnown, out ReadOnlySpan<byte> original)
    {
        original = default;
        if (length > PatchSite.MaxBudget)
        {
            Refuse(
                DiagnosticCodes.RecordUnfit, address, $"the region of {label} is longer than a site of a plan", $"{length} bytes",
                $"Divide it: a plan's site has at most {PatchSite.MaxBudget} bytes. Or jump from the region to the code.");
            return false;
        }

        if (!_image.TryGetBytes(address, length, out Span<byte> there))
        {
            Refuse(DiagnosticCodes.PlanOutsideImage, address, $"the site of {label} is not in the image", null);
            return false;
        }

        original = OriginalOf(address, there);
        if (isKnown(there) || !original.SequenceEqual(there))
        {
            return true;
        }

        Refuse(
            DiagnosticCodes.UnknownBytes, address, $"the site of {label} holds bytes that nothing it may hold has", HexBytes.Format(there));
        return false;
    }

    /// <summary>What stands at a site, or stood there before the previous plan put it there.</summary>
    private ReadOnlySpan<byte> OriginalOf(VirtualAddress address, ReadOnlySpan<byte> there)
    {
        int index = _options.Previous?.IndexContaining(address) ?? -1;
        return index >= 0 && _options.Previous![index] is { } before && before.Address == address && before.NewBytes.SequenceEqual(there)
            ? before.OldBytes.ToArray() : there;
    }

    private void Refuse(string code, VirtualAddress address, string message, string? found, string? help = null) =>
        _found.Add(PatchDiagnostic.Error(code, message) with { Address = address, Found = found, Help = help });
}
