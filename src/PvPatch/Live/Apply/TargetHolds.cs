namespace PvPatch.Live;

/// <summary>
/// Which static calls and slots lead into which block, kept with the block, so that none is retired under them. All under the lock of
/// <see cref="LinkLedger"/>, for blocks may be another arena's.
/// </summary>
/// <remarks>
/// <code>
/// a batch is        the block it will lead to      the block it led to before
/// reserved          noted                          stays noted
/// published         stays noted                    forgotten, unless it is the same
/// taken back        forgotten, unless the same     stays noted
/// taken back in part: sites of the call or slot may lead to either, and both stay noted until all of them are written again
/// </code>
/// </remarks>
internal sealed class TargetHolds(LinkLedger ledger, CodeArena arena)
{
    // Blocks that sites which could not be taken back may lead to.
    private readonly List<(LiveSetting Call, CodeBlock Target)> _faulted = [];
    private readonly List<(SlotTable Slots, int Slot, CodeBlock Target)> _faultedSlots = [];

    /// <summary>Notes what a batch is about to lead to.</summary>
    /// <returns>Why it can't; the caller releases then.</returns>
    public PatchDiagnostic? Reserve(PlannedSites plan)
    {
        foreach ((LiveSetting setting, long value) in plan.Settings)
        {
            if (BlockOf(setting, value, out VirtualAddress target) is not CodeBlock block)
            {
                continue;
            }

            if (block.IsRetired)
            {
                return LinkLedger.Retired(setting.Name, target);
            }

            block.SetCalled(setting, true);
        }

        foreach (SlotWrite write in plan.Slots)
        {
            if (write.Old == write.New || BlockOf(write.New, out VirtualAddress target) is not CodeBlock block)
            {
                continue;
            }

            SlotTable slots = plan.SlotTable!;
            if (block.IsRetired)
            {
                return LinkLedger.Retired(slots.Layout[write.Slot].ToString(), target);
            }

            block.SetHeld(slots, write.Slot, true);
        }

        return null;
    }

    /// <summary>Takes back what <see cref="Reserve"/> noted, but where sites could not be taken back.</summary>
    public void Release(PlannedSites plan)
    {
        bool faulted = plan.AnyFaulted;
        foreach ((LiveSetting setting, long value) in plan.Settings)
        {
            CodeBlock? block = BlockOf(setting, value, out _);
            if (block is null || ReferenceEquals(block, BlockOf(setting, setting.Value, out _)))
            {
                continue;
            }

            if (faulted)
            {
                _faulted.Add((setting, block));
            }
            else if (!_faulted.Contains((setting, block)))
            {
                block.SetCalled(setting, false);
            }
        }

        SlotTable slots = plan.SlotTable!;
        foreach (SlotWrite write in plan.Slots)
        {
            CodeBlock? block = write.Old == write.New ? null : BlockOf(write.New, out _);
            if (block is null || ReferenceEquals(block, BlockOf(write.Old, out _)))
            {
                continue;
            }

            if (faulted)
            {
                _faultedSlots.Add((slots, write.Slot, block));
            }
            else if (!_faultedSlots.Contains((slots, write.Slot, block)))
            {
                block.SetHeld(slots, write.Slot, false);
            }
        }
    }

    /// <summary>Forgets what a batch no longer leads to.</summary>
    public void Publish(PlannedSites plan)
    {
        foreach ((LiveSetting setting, long value) in plan.Settings)
        {
            if (setting is StaticCall) // of many settings, hardly any
            {
                PublishCall(setting, BlockOf(setting, value, out _));
            }
        }

        foreach (SlotWrite write in plan.Slots)
        {
            PublishSlot(plan.SlotTable!, write);
        }
    }

    /// <summary>Why blocks can't be retired, if a call or a slot leads to one.</summary>
    public static PatchDiagnostic? Check(CodeBlock[] blocks)
    {
        foreach (CodeBlock block in blocks)
        {
            string calls = string.Join(
                ", ", block.CallsInto.Where(static c => c.Arena is { Memory.IsDisposed: false }).Select(static c => c.Name));
            string slots = string.Join(
                ", ", block.SlotsInto.Where(static s => !s.Slots.Arena.Memory.IsDisposed).Select(static s => s.Slots.Layout[s.Slot]));
            if (calls.Length + slots.Length > 0)
            {
                bool called = calls.Length > 0;
                string what = called ? "static call" : "slot";
                return PatchDiagnostic.Error(DiagnosticCodes.BlockLinked, $"a {what} still leads to the block") with
                {
                    Address = block.Address,
                    Found = called ? calls : slots,
                    Help = called
                        ? "Give the call another target, or none, before the block is retired."
                        : "Switch the slot to a backend that leads elsewhere before the block is retired.",
                };
            }
        }

        return null;
    }

    /// <summary>The block that a static call leads into with a value.</summary>
    private CodeBlock? BlockOf(LiveSetting setting, long value, out VirtualAddress target)
    {
        target = setting is StaticCall ? StaticCall.CodeOf(value) ?? default : default;
        return target == default ? null : ledger.BlockAt(target);
    }

    /// <summary>The block that a slot leads into with a function, thunks and far jumps left out.</summary>
    private CodeBlock? BlockOf(VirtualAddress function, out VirtualAddress target)
    {
        target = arena.Functions.TargetOf(function);
        return ledger.BlockAt(target);
    }

    /// <summary>Forgets the blocks that a slot led to before, and sites of it may have led to.</summary>
    private void PublishSlot(SlotTable slots, SlotWrite write)
    {
        if (write.Old == write.New && _faultedSlots.Count == 0)
        {
            return;
        }

        CodeBlock? now = BlockOf(write.New, out _);
        CodeBlock? before = BlockOf(write.Old, out _);
        if (!ReferenceEquals(before, now))
        {
            before?.SetHeld(slots, write.Slot, false);
        }

        for (int i = _faultedSlots.Count - 1; i >= 0; i--)
        {
            (SlotTable table, int slot, CodeBlock target) = _faultedSlots[i];
            if (ReferenceEquals(table, slots) && slot == write.Slot)
            {
                _faultedSlots.RemoveAt(i);
                if (!ReferenceEquals(target, now))
                {
                    target.SetHeld(slots, slot, false);
                }
            }
        }
    }

    /// <summary>Forgets the blocks that a static call led to before, and sites of it may have led to.</summary>
    private void PublishCall(LiveSetting call, CodeBlock? now)
    {
        CodeBlock? before = BlockOf(call, call.Value, out _);
        if (!ReferenceEquals(before, now))
        {
            before?.SetCalled(call, false);
        }

        for (int i = _faulted.Count - 1; i >= 0; i--)
        {
            (LiveSetting faulted, CodeBlock target) = _faulted[i];
            if (faulted == call)
            {
                _faulted.RemoveAt(i);
                if (!ReferenceEquals(target, now))
                {
                    target.SetCalled(call, false);
                }
            }
        }
    }
}
