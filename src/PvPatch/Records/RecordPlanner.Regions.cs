using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Records;

/// <content>Regions that other code takes the place of: variants and alternatives.</content>
internal sealed partial class RecordPlanner
{
    private void PlanRegions()
    {
        foreach (IGrouping<VirtualAddress, ReplacementRecord> region in _records.Variants.GroupBy(static r => r.Address))
        {
            ReplacementRecord[] all = [.. region];
            int wanted = Array.FindIndex(all, r => r.Backend == _changes.Backend?.Name);
            if (wanted >= 0)
            {
                var forms = new byte[]?[all.Length];
                for (int i = 0; i < all.Length; i++)
                {
                    forms[i] = all[i].Code == all[i].Address ? null : Finish(all[i]);
                }

                // What was laid down there is known while it stands there, or from the plan before.
                int laid = Array.FindIndex(all, static r => r.Code == r.Address);
                if (laid >= 0 && _image.TryGetBytes(all[laid].Address, all[laid].Length, out Span<byte> there))
                {
                    byte[] original = OriginalOf(all[laid].Address, there).ToArray();
                    forms[laid] = Array.Exists(forms, f => f is not null && f.AsSpan().SequenceEqual(original)) ? null : original;
                }

                PlanRegion(all[wanted], forms[wanted], all[wanted].Backend!, b =>
                {
                    bool known = false;
                    foreach (byte[]? form in forms)
                    {
                        known |= form is not null && b.SequenceEqual(form);
                    }

                    return known;
                });
            }
        }

        foreach (IGrouping<VirtualAddress, ReplacementRecord> region in _records.Alternatives.GroupBy(static r => r.Address))
        {
            ReplacementRecord[] applicable = [.. region.Where(r => _changes.Features?.Contains(r.Feature) == !r.IsForAbsence)];
            if (_changes.Features is not null && applicable.Length == 0)
            {
                ReplacementRecord any = region.First();
                if (TryRead(any.Address, any.Length, "alternatives", static _ => true, out ReadOnlySpan<byte> original))
                {
                    Add(any.Address, original, original, new PlanOutcome { Label = "no feature", Action = PatchAction.LeaveAlone });
                }
            }
            else if (_changes.Features is not null)
            {
                ReplacementRecord last = applicable[^1];
                string name = string.Create(
                    System.Globalization.CultureInfo.InvariantCulture, $"{(last.IsForAbsence ? "not " : "")}feature {last.Feature}");
                PlanRegion(last, Finish(last), name, static _ => true);
            }
        }
    }

    private void PlanRegion(ReplacementRecord record, byte[]? bytes, string label, Known isKnown)
    {
        if (bytes is null)
        {
            Refuse(DiagnosticCodes.RecordUnfit, record.Address, $"the code for {label} can't be moved there", $"the code at {record.Code}",
                "Short branches stay within the code, and what is referred to is in reach of the region. What was laid down first is known "
                + "while it stands there; then give the plan that replaced it (PlanOptions.Previous).");
        }
        else if (TryRead(record.Address, record.Length, label, isKnown, out ReadOnlySpan<byte> old))
        {
            Add(record.Address, old, bytes, new PlanOutcome { Label = label, Action = PatchAction.Inline });
        }
    }

    /// <summary>What a region holds with a piece of code, if it can be moved there.</summary>
    private byte[]? Finish(ReplacementRecord record)
    {
        byte[] bytes = new byte[record.Length];
        if (record.CodeLength > record.Length || !_image.TryGetBytes(record.Code, record.CodeLength, out Span<byte> code))
        {
            return null;
        }

        if (!MovedCode.TryMove(code, record.Code, record.Address, Bitness, out byte[]? moved, out _))
        {
            return null;
        }

        moved.CopyTo(bytes, 0);
        (_options.Nops ?? NopStyle.Default(Bitness)).Fill(bytes.AsSpan(moved.Length), Bitness);
        return bytes;
    }
}
