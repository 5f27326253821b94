using System.Buffers.Binary;
using System.Globalization;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// What a set of changes would do to running code as it is now, decided and not written. Made by <see cref="LivePatcher.Plan"/>, applied by
/// <see cref="LivePatcher.Apply(LivePlan, SwitchOptions?)"/>, which refuses it where anything it says of a site or slot is no longer so.
/// </summary>
public sealed class LivePlan
{
    private readonly SlotTable _slots;
    private readonly CodeBlock[] _blocks;
    private readonly HashSet<VirtualAddress> _unplaced; // the sites whose island has no place
    private readonly (LiveSetting Setting, long Old, long New)[] _settings;

    /// <summary>Makes the plan of what is decided, under the patch lock.</summary>
    internal LivePlan(
        LivePatcher patcher, LiveChanges changes, SwitchOptions options, SlotTable slots, PlannedSites decided, ApplyReport report)
    {
        Patcher = patcher;
        Changes = changes;
        Options = options;
        KeptIndirect = report.KeptIndirect;
        KeptLinks = report.KeptLinks;
        Plan = Build(patcher.Arena, slots, decided, report);
        SlotWrites = decided.Slots.Count(static s => s.Old != s.New);
        _slots = slots;
        _blocks = [.. decided.Blocks.DistinctBy(static b => b.Address)]; // several layouts have a block each of the same code
        _unplaced = [];
        _settings = [.. decided.Settings.Select(static s => (s.Setting, s.Setting.Value, s.Value))];
        for (int i = 0; i < decided.Count; i++)
        {
            Writes += decided.Sites[i].IsWrite ? 1 : 0;
            if (decided.Sites[i].IsUnplaced)
            {
                _unplaced.Add(decided.SiteOf(i).Address);
            }
        }
    }

    /// <summary>
    /// The decisions as a plan like that of an image: every site with what it holds now as its old bytes, and every slot that is set, as
    /// eight bytes under
    /// <see cref="PatchAction.Slot"/>. To be summed up, listed, compared, explained and stored. The displacement of a jump to an island
    /// that has no place yet is zero; a call whose argument is loaded by a stub that has none yet leads to the function. The remark says
    /// so.
    /// </summary>
    public PatchPlan Plan { get; }

    /// <summary>The options it was made with.</summary>
    public SwitchOptions Options { get; }

    /// <summary>Number of sites that would be written.</summary>
    public int Writes { get; }

    /// <summary>Number of slots that would be given another function.</summary>
    public int SlotWrites { get; }

    /// <summary>Number of sites that would stay indirect because they can be changed only at quiescence.</summary>
    public int KeptIndirect { get; }

    /// <summary>Number of sites that would keep a target of their own.</summary>
    public int KeptLinks { get; }

    internal LivePatcher Patcher { get; }

    internal LiveChanges Changes { get; }

    /// <summary>Compares the plan with what stands in its sites and slots now; writes nothing.</summary>
    /// <returns>
    /// How many hold the new bytes, the old ones, or others, and where the others are. Jumps to islands that had no place when the plan was
    /// made are among the others once it is applied.
    /// </returns>
    /// <exception cref="PatchException">The arena was disposed of (PV8004).</exception>
    public VerifyResult Verify()
    {
        Patcher.Arena.CheckUsable();
        return Plan.Verify(ImageNow());
    }

    /// <inheritdoc/>
    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture,
            $"{Plan.Backend}: {Writes} sites and {SlotWrites} slots to write, {KeptIndirect} kept indirect; {Plan.Summary}");

    /// <summary>Why a plan that was made now is not this one.</summary>
    internal PatchDiagnostic? Compare(LivePlan now)
    {
        if (!_settings.Select(static s => s.Setting).SequenceEqual(now._settings.Select(static s => s.Setting)))
        {
            return PatchDiagnostic.Error(DiagnosticCodes.PlanStale, "the plan no longer fits the code: a site follows what none did") with
            {
                Help = "Something was emitted since it was made. Make the plan again.",
            };
        }

        // A key may be enabled once more, and no site tell of it.
        for (int i = 0; i < _settings.Length; i++)
        {
            ((LiveSetting setting, long old, long made), (_, long found, long then)) = (_settings[i], now._settings[i]);
            if ((old, made) != (found, then))
            {
                return PatchDiagnostic.Error(DiagnosticCodes.PlanStale, $"\"{setting.Name}\" is not what it was when the plan was made") with
                {
                    Found = $"{setting.Show(found)}, to be {setting.Show(then)}",
                    Expected = $"{setting.Show(old)}, to be {setting.Show(made)}",
                    Help = "It was changed since, perhaps by this very plan. Make the plan again.",
                };
            }
        }

        foreach (PlanDifference difference in PlanDiff.Compare(Plan, now.Plan).Differences)
        {
            bool placed = difference.Kinds == PlanDifferenceKinds.NewBytes && _unplaced.Contains(difference.Address);
            if (!placed)
            {
                return PatchDiagnostic.Error(DiagnosticCodes.PlanStale, $"the plan no longer fits the code: {difference.Kinds} differ") with
                {
                    Address = difference.Address,
                    Found = difference.Second?.ToString() ?? "no such site",
                    Expected = difference.First?.ToString() ?? "no such site",
                    Help = "Something was emitted, retired or switched since it was made, or the options are others. Make the plan again.",
                };
            }
        }

        return null;
    }

    private static PatchPlan Build(CodeArena arena, SlotTable slots, PlannedSites decided, ApplyReport report)
    {
        var builder = new PlanBuilder(
            report.Target, "live", 64, [new PlanSegment("arena", arena.Address, arena.Size)], decided.Count + decided.Slots.Count);
        foreach (PatchDiagnostic warning in report.Diagnostics)
        {
            builder.AddDiagnostic(warning);
        }

        for (int i = 0; i < decided.Count; i++)
        {
            LiveSite site = decided.SiteOf(i);
            int length = site.Budget;
            byte[] old = length > SiteBytes.MaxLength ? site.Block.LongBytesOf(site.Index) : site.Block.BytesOf(site.Index).ToArray(length);
            byte[] made = !decided.Sites[i].IsWrite ? old
                : length > SiteBytes.MaxLength ? decided.LongBytes[i]
                : decided.NewOf(i).ToArray(length);
            builder.Add(site.Address, old, made, OutcomeOf(arena, decided, i, made));
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

        return builder.Build();
    }

    /// <summary>A copy of the code and the slots as they are now.</summary>
    private CodeImage ImageNow()
    {
        byte[] words = new byte[sizeof(ulong) * _slots.Layout.Count];
        for (int slot = 0; slot < _slots.Layout.Count; slot++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(words.AsSpan(sizeof(ulong) * slot), _slots[slot].Value);
        }

        return new CodeImage(
            64, [.. _blocks.Select(static b => new CodeSegment(b.Address.ToString(), b.Address, b.ToArray())),
                new CodeSegment("slots", _slots.Address, words)]);
    }

    private static PlanOutcome OutcomeOf(CodeArena arena, PlannedSites decided, int index, ReadOnlySpan<byte> bytes)
    {
        ref PlannedSite outcome = ref decided.Sites[index];
        LiveSite site = decided.SiteOf(index);
        bool kept = outcome.Change == SiteChange.KeptIndirect;
        bool linked = outcome.State == LiveSiteState.Linked;
        VirtualAddress? target = kept ? null : BranchTarget(outcome, bytes, site.Address);
        if (site.Slot is not OpSlot slot)
        {
            return new PlanOutcome
            {
                Label = site.Name,
                Action = outcome.Action,
                Target = target is VirtualAddress place ? arena.Functions.TargetOf(place) : null, // not the far jump before it
            };
        }

        return new PlanOutcome
        {
            Label = slot.ToString(),
            Type = slot.Index,
            Clobbers = site.Clobbers,
            Action = outcome.Action,
            Reason = outcome.Reason,
            Target = target is VirtualAddress entry
                ? arena.Functions.TargetOf(arena.Arguments.TargetOf(site.Record.Offset, entry) ?? entry) : null,
            TargetName = target is null || linked ? null : decided.After[slot.Index]?.Backend[slot.Index].TargetName,
            Detail = linked ? "linked"
                : outcome.IsUnplaced ? $"{(outcome.Form == LiveForm.Island ? "in an island" : "through a stub")} that has no place yet"
                : outcome.Form == LiveForm.Island && !kept ? "in an island"
                : null,
        };
    }

    private static VirtualAddress? BranchTarget(in PlannedSite outcome, ReadOnlySpan<byte> bytes, VirtualAddress address) =>
        outcome.Form switch
        {
            LiveForm.Jump when bytes.Length == BranchCode.ShortLength => address + BranchCode.ShortLength + (sbyte)bytes[1],
            LiveForm.Call or LiveForm.Jump => address + bytes.Length + BinaryPrimitives.ReadInt32LittleEndian(bytes[^sizeof(int)..]),
            LiveForm.InPlace when outcome.Action is PatchAction.Call or PatchAction.ThunkCall or PatchAction.Jump && bytes[0] is 0xe8 or 0xe9 =>
                address + 5 + BinaryPrimitives.ReadInt32LittleEndian(bytes[1..]),
            _ => null,
        };
}
