using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <content>Sites of settings: keys and branches.</content>
public sealed partial class SiteEmitter
{
    private const int MostKeys = 6; // 64 labels
    private readonly Assembler _scratch = new(64);

    /// <summary>Emits a branch on a key: a nop or a jump, one instruction.</summary>
    /// <param name="assembler">A 64-bit assembler.</param>
    /// <param name="key">The key.</param>
    /// <param name="target">Where it jumps: a label of this assembler, placed before or behind.</param>
    /// <param name="hint">What falls through.</param>
    /// <param name="length">Length in bytes: 5, or 2 where the label is within 127 bytes.</param>
    /// <returns>The site's ticket.</returns>
    /// <exception cref="PatchException">The key belongs to another arena (PV8036), when the code is put into one; as Emit else.</exception>
    public SiteTicket Branch(
        Assembler assembler, StaticKey key, Label target, BranchHint hint = BranchHint.Unlikely, int length = BranchCode.NearLength) =>
        hint == BranchHint.Likely
            ? Branch(assembler, key, whenOff: target, whenOn: default, length)
            : Branch(assembler, key, whenOff: default, whenOn: target, length);

    /// <summary>Emits a branch on a key where neither way falls through: always one jump.</summary>
    /// <param name="assembler">A 64-bit assembler.</param>
    /// <param name="key">The key.</param>
    /// <param name="whenOff">Where it jumps while the key is off; an empty label where control falls through.</param>
    /// <param name="whenOn">Where it jumps while the key is on; an empty label where control falls through.</param>
    /// <param name="length">Length in bytes: 5, or 2 where the labels are within 127 bytes.</param>
    /// <returns>The site's ticket.</returns>
    /// <exception cref="PatchException">As for the other forms.</exception>
    public SiteTicket Branch(
        Assembler assembler, StaticKey key, Label whenOff, Label whenOn, int length = BranchCode.NearLength) =>
        Branch(assembler, [key], [whenOff, whenOn], length);

    /// <summary>Emits a branch on several keys at once: what would be nested branches is one nop or one jump.</summary>
    /// <param name="assembler">A 64-bit assembler.</param>
    /// <param name="keys">The keys, 1 to 6.</param>
    /// <param name="labels">
    /// A label for each state of the keys: two for one key, four for two. The first key is the lowest bit of the label's number. An empty
    /// label is a state in which control falls through.
    /// </param>
    /// <param name="length">Length in bytes: 5, or 2 where the labels are within 127 bytes.</param>
    /// <returns>The site's ticket.</returns>
    /// <exception cref="PatchException">As for the other forms.</exception>
    public SiteTicket Branch(
        Assembler assembler, IReadOnlyList<StaticKey> keys, IReadOnlyList<Label> labels, int length = BranchCode.NearLength)
    {
        ArgumentNullException.ThrowIfNull(keys);
        ArgumentNullException.ThrowIfNull(labels);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(keys.Count, nameof(keys));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(keys.Count, MostKeys, nameof(keys));
        if (labels.Count != 1 << keys.Count)
        {
            throw new ArgumentException($"there must be {1 << keys.Count} labels for {keys.Count} keys", nameof(labels));
        }

        LiveSetting[] settings = keys.Count == 1 && keys[0] is StaticKey key ? key.Alone : [.. keys];
        if (settings.Distinct().Count() != settings.Length)
        {
            throw new ArgumentException("a key is named twice", nameof(keys));
        }

        return EmitSetting(assembler, settings, labels, length);
    }

    /// <summary>Emits a branch that goes one of several ways: one jump, or a nop where the way chosen falls through.</summary>
    /// <param name="assembler">A 64-bit assembler.</param>
    /// <param name="branch">The choice.</param>
    /// <param name="labels">A label for each way, in order; an empty one where control falls through.</param>
    /// <param name="length">Length in bytes: 5, or 2 where the labels are within 127 bytes.</param>
    /// <returns>The site's ticket.</returns>
    /// <exception cref="PatchException">As for the other forms.</exception>
    public SiteTicket Branch(
        Assembler assembler, MultiBranch branch, IReadOnlyList<Label> labels, int length = BranchCode.NearLength)
    {
        ArgumentNullException.ThrowIfNull(branch);
        ArgumentNullException.ThrowIfNull(labels);
        return labels.Count == branch.Ways
            ? EmitSetting(assembler, branch.Alone, labels, length)
            : throw new ArgumentException($"there must be {branch.Ways} labels, one for each way", nameof(labels));
    }

    /// <summary>
    /// Emits a call of a static call's target: a direct call, a nop while there is none, <c>xor eax,eax</c> where it only gives 0.
    /// </summary>
    /// <param name="assembler">A 64-bit assembler.</param>
    /// <param name="call">The call.</param>
    /// <returns>The site's ticket.</returns>
    /// <exception cref="PatchException">The call belongs to another arena (PV8036), when the code is put into one.</exception>
    public SiteTicket Call(Assembler assembler, StaticCall call) => EmitCall(assembler, call, StaticCallForm.Call);

    /// <summary>Emits a tail call: a direct jump to the target, <c>ret</c> while there is none.</summary>
    /// <param name="assembler">A 64-bit assembler.</param>
    /// <param name="call">The call.</param>
    /// <returns>The site's ticket.</returns>
    /// <exception cref="PatchException">As for <see cref="Call"/>.</exception>
    public SiteTicket Jump(Assembler assembler, StaticCall call) => EmitCall(assembler, call, StaticCallForm.TailCall);

    /// <summary>Emits a tail call under a condition of the flags: a conditional jump to the target, or to a <c>ret</c>.</summary>
    /// <param name="assembler">A 64-bit assembler.</param>
    /// <param name="condition">The condition; where it does not hold, control goes on behind the site.</param>
    /// <param name="call">The call.</param>
    /// <returns>The site's ticket.</returns>
    /// <exception cref="PatchException">As for <see cref="Call"/>.</exception>
    public SiteTicket JumpIf(Assembler assembler, ConditionCode condition, StaticCall call)
    {
        if (condition is < ConditionCode.o or > ConditionCode.g)
        {
            throw new ArgumentOutOfRangeException(nameof(condition), condition, "a conditional tail call needs a condition");
        }

        return EmitCall(assembler, call, StaticCallForm.ConditionalTailCall, condition);
    }

    /// <summary>
    /// Emits the entry of a function that can be replaced whole, as the function's first instruction: a nop while the call has no target,
    /// and the function behind it runs; else a jump to the target, which is to do what the function does. Several entries that belong
    /// together are switched in one batch.
    /// </summary>
    /// <param name="assembler">A 64-bit assembler.</param>
    /// <param name="call">The call whose target replaces the function.</param>
    /// <returns>The site's ticket.</returns>
    /// <exception cref="PatchException">As for <see cref="Call"/>.</exception>
    public SiteTicket Entry(Assembler assembler, StaticCall call) => EmitCall(assembler, call, StaticCallForm.Entry);

    private SiteTicket EmitCall(Assembler assembler, StaticCall call, StaticCallForm form, ConditionCode condition = ConditionCode.None)
    {
        ArgumentNullException.ThrowIfNull(call);
        int length = form == StaticCallForm.ConditionalTailCall ? StaticCallCode.ConditionalLength : StaticCallCode.Length;
        return EmitSetting(assembler, new StaticCallSite.Emitted(call, form, condition), length);
    }

    private SiteTicket EmitSetting(Assembler assembler, LiveSetting[] settings, IReadOnlyList<Label> labels, int length)
    {
        if (length is not (BranchCode.ShortLength or BranchCode.NearLength))
        {
            throw new ArgumentOutOfRangeException(nameof(length), length, "a branch has 2 or 5 bytes");
        }

        Array.ForEach(settings, static s => ArgumentNullException.ThrowIfNull(s, "keys"));
        foreach (Label label in labels)
        {
            CheckLabel(assembler, label);
        }

        return EmitSetting(assembler, new BranchSite.Emitted(settings) { Labels = [.. labels.Select(NumberOf)] }, length);
    }

    private SiteTicket EmitSetting(Assembler assembler, EmittedSetting setting, int length)
    {
        Bind(assembler);
        var kind = new PatchSite(VirtualAddress.Zero, SlotTable.SettingSlotOf(Layout), length, RegisterSet.None);
        _sites.Add(new EmittedSite(
            assembler.Instructions.Count, kind, SitePlacement.InsideAligned8, Forwarding: false, Start: -1,
            EmittedSite.EmitPlaceholder(assembler, length))
        {
            Setting = setting,
        });
        return new SiteTicket(_sites.Count - 1);
    }

    /// <summary>
    /// Throws for a label that was placed in another assembler: Iced numbers the labels of each from 1, so that its number is one of this
    /// assembler's too. One that is not placed can't be told.
    /// </summary>
    private void CheckLabel(Assembler assembler, Label label)
    {
        ArgumentNullException.ThrowIfNull(assembler);
        IReadOnlyList<Instruction> instructions = assembler.Instructions;
        int index = label.IsEmpty ? -1 : label.InstructionIndex;
        if (index > instructions.Count || (index >= 0 && index < instructions.Count && instructions[index].IP != NumberOf(label)))
        {
            throw new PatchException(Misuse($"the label {label} is placed in another assembler, or this one was reset"));
        }
    }

    /// <summary>Iced's number of a label, placed or not, which it shows in what refers to the label; 0 of an empty one.</summary>
    private ulong NumberOf(Label label)
    {
        if (label.IsEmpty)
        {
            return 0;
        }

        _scratch.Reset();
        _scratch.jmp(label);
        return _scratch.Instructions[0].NearBranchTarget;
    }
}
