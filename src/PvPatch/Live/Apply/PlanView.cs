using System.Buffers.Binary;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>What was decided for running code, as the plan that all mechanisms share. Made where somebody wants to see it.</summary>
internal sealed class PlanView
{
    private readonly SlotTable _slots;
    private readonly CodeBlock[] _blocks;

    private PlanView(SlotTable slots, CodeBlock[] blocks, PatchPlan plan, HashSet<VirtualAddress> unplaced)
    {
        _slots = slots;
        _blocks = blocks;
        Plan = plan;
        Unplaced = unplaced;
    }

    public PatchPlan Plan { get; }

    /// <summary>The sites whose island had no place.</summary>
    public HashSet<VirtualAddress> Unplaced { get; }

    public int Writes { get; private init; }

    public int SlotWrites { get; private init; }

    /// <summary>The view of what is decided, under the patch lock.</summary>
    public static PlanView Of(CodeArena arena, SlotTable slots, PlannedSites decided, BatchReport report)
    {
        var builder = new PlanBuilder(report.Target, "live", 64, [new PlanSegment("arena", arena.Address, arena.Size)], decided.OutcomeCount + decided.Slots.Count);
        foreach (PatchDiagnostic warning in report.Diagnostics)
        {
            builder.AddDiagnostic(warning);
        }

        int next = 0;
        int nextLong = 0;
        HashSet<int> unplaced = [.. decided.Unplaced];
        for (int i = 0; i < decided.OutcomeCount; i++)
        {
            LiveSite site = decided.SiteOf(i);
            int length = site.Budget;
            byte[] old = length > SiteBytes.MaxLength ? site.Block.LongBytesOf(site.Index) : site.Block.BytesOf(site.Index).ToArray(length);
            byte[] made = old;
            if (next < decided.Writes.Length && decided.Writes[next].Outcome == i)
            {
                made = decided.Writes[next++].New.ToArray(length);
            }
            else if (nextLong < decided.LongWrites.Count && decided.LongWrites[nextLong].Outcome == i)
            {
                made = decided.LongWrites[nextLong++].New;
            }

            builder.Add(site.Address, old, made, OutcomeOf(arena, decided, i, made, unplaced.Contains(i)));
        }

        Span<byte> before = stackalloc byte[sizeof(ulong)];
        Span<byte> after = stackalloc byte[sizeof(ulong)];
        foreach (SlotWrite write in decided.Slots)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(before, write.Old.Value);
            BinaryPrimitives.WriteUInt64LittleEndian(after, write.New.Value);
            builder.Add(slots.AddressOf(write.Slot), before, after, new PlanOutcome
            {
                Label = slots.Layout[write.Slot].ToString(),
                Type = write.Slot,
                Action = PatchAction.Slot,
                Target = arena.Functions.TargetOf(write.New),
                TargetName = decided.After[write.Slot]?.Backend[write.Slot].TargetName,
            });
        }

        return new PlanView(slots, [.. decided.Blocks], builder.Build(), [.. unplaced.Select(i => decided.SiteOf(i).Address)])
        {
            Writes = decided.Writes.Length + decided.LongWrites.Count,
            SlotWrites = decided.Slots.Count(static s => s.Old != s.New),
        };
    }

    /// <summary>A copy of the code and the slots as they are now.</summary>
    public CodeImage ImageNow()
    {
        byte[] words = new byte[sizeof(ulong) * _slots.Layout.Count];
        for (int slot = 0; slot < _slots.Layout.Count; slot++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(words.AsSpan(sizeof(ulong) * slot), _slots[slot].Value);
        }

        return new CodeImage(
            64, [.. _blocks.Select(static b => new CodeSegment(b.Address.ToString(), b.Address, b.ToArray())), new CodeSegment("slots", _slots.Address, words)]);
    }

    private static PlanOutcome OutcomeOf(CodeArena arena, PlannedSites decided, int index, ReadOnlySpan<byte> bytes, bool unplaced)
    {
        OutcomeRecord outcome = decided.Outcomes[index];
        LiveSite site = decided.SiteOf(index);
        bool kept = outcome.Change == SiteChange.KeptIndirect;
        bool linked = outcome.State == LiveSiteState.Linked;
        VirtualAddress? target = kept ? null : BranchTarget(outcome, bytes, site.Address);
        return new PlanOutcome
        {
            Label = site.Slot.ToString(),
            Type = site.Slot.Index,
            Clobbers = site.Clobbers,
            Action = outcome.Action,
            Reason = outcome.Reason,
            Target = target is VirtualAddress entry ? arena.Functions.TargetOf(entry) : null,
            TargetName = target is null || linked ? null : decided.After[site.Slot.Index]?.Backend[site.Slot.Index].TargetName,
            Detail = linked ? "linked"
                : unplaced ? "in an island that has no place yet"
                : outcome.Form == LiveForm.Island && !kept ? "in an island"
                : null,
        };
    }

    private static VirtualAddress? BranchTarget(OutcomeRecord outcome, ReadOnlySpan<byte> bytes, VirtualAddress address) => outcome.Form switch
    {
        LiveForm.Call or LiveForm.Jump => address + bytes.Length + BinaryPrimitives.ReadInt32LittleEndian(bytes[^sizeof(int)..]),
        LiveForm.InPlace when outcome.Action is PatchAction.Call or PatchAction.ThunkCall or PatchAction.Jump && bytes[0] is 0xe8 or 0xe9 =>
            address + 5 + BinaryPrimitives.ReadInt32LittleEndian(bytes[1..]),
        _ => null,
    };
}
