using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <content>Sites of settings: keys, branches, static calls, constants, variants.</content>
public sealed partial class SiteEmitter
{
    private const int MostKeys = 6; // 64 labels
    private readonly Assembler _scratch = new(64);
    private readonly Queue<(Label Start, Action<Assembler> Code, Label Behind)> _outOfLine = new();

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

    /// <summary>Emits an instruction whose immediate or displacement follows a constant.</summary>
    /// <param name="assembler">A 64-bit assembler.</param>
    /// <param name="constant">The constant.</param>
    /// <param name="instruction">
    /// Writes the instruction, exactly one, which refers to no label. The number it has in the field says nothing but how wide the field is:
    /// <c>a.mov(rax, 0L)</c> gives 8 bytes, <c>a.cmp(edi, int.MaxValue)</c> 4.
    /// </param>
    /// <param name="displacement">Whether the displacement is meant where there is an immediate too.</param>
    /// <returns>The site's ticket.</returns>
    /// <exception cref="PatchException">
    /// It is not one instruction with such a field (PV8014). When the code is put into an arena: the constant is another arena's (PV8036) or
    /// its value does not fit (PV8039).
    /// </exception>
    public SiteTicket Constant(Assembler assembler, CodeConstant constant, Action<Assembler> instruction, bool displacement = false)
    {
        ArgumentNullException.ThrowIfNull(constant);
        ArgumentNullException.ThrowIfNull(instruction);
        _scratch.Reset();
        instruction(_scratch);
        ConstantCode? code = null;
        string? error = "a constant's site is one instruction";
        if (_scratch.Instructions.Count != 1 || !ConstantCode.TryCreate(_scratch.Instructions[0], displacement, out code, out error))
        {
            throw new PatchException(Misuse(error!) with { Found = string.Join("; ", _scratch.Instructions) });
        }

        return EmitSetting(assembler, new ConstantSite.Emitted(constant, code), code.Length);
    }

    /// <summary>
    /// Emits a place at which each backend has code of its own, whatever it consists of: argument set-up, call and all. The first one's code
    /// stands in place and is fallen into; the others' are out of line, and a jump at the place leads to them. Control goes on behind the
    /// place in any case, unless a variant's code leads elsewhere.
    /// </summary>
    /// <remarks>
    /// The place follows switches of all sites (<see cref="LiveChanges.Use"/> without a scope), not those of one slot or of some sites.
    /// Before the first of them the first variant runs. A switch to a backend without a variant is refused (PV8039). A thread that is in
    /// one variant while the place is switched runs that to its end. The code that is out of line is emitted by
    /// <see cref="EmitOutOfLine"/>, or behind the block.
    /// </remarks>
    /// <param name="assembler">A 64-bit assembler.</param>
    /// <param name="variants">The code for each backend, one at least.</param>
    /// <returns>The ticket of the site at the place's start.</returns>
    /// <exception cref="PatchException">A backend was made for another layout (PV2004).</exception>
    public SiteTicket Variants(Assembler assembler, params IReadOnlyList<SiteVariant> variants)
    {
        ArgumentNullException.ThrowIfNull(variants);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(variants.Count, nameof(variants));
        var named = new HashSet<Backend>();
        foreach (SiteVariant variant in variants)
        {
            ArgumentNullException.ThrowIfNull(variant.Backend, nameof(variants));
            ArgumentNullException.ThrowIfNull(variant.Code, nameof(variants));
            if (!ReferenceEquals(variant.Backend.Layout, Layout))
            {
                throw new PatchException(PatchDiagnostic.Error(
                    DiagnosticCodes.WrongLayout, $"the backend \"{variant.Backend.Name}\" was made for another layout") with
                { Expected = Layout.Name });
            }

            if (!named.Add(variant.Backend))
            {
                throw new ArgumentException($"the backend \"{variant.Backend.Name}\" has two variants", nameof(variants));
            }
        }

        Bind(assembler);
        Label behind = assembler.CreateLabel();
        Label[] labels = [default, .. variants.Skip(1).Select(_ => assembler.CreateLabel())];
        SiteTicket ticket = EmitSetting(
            assembler,
            new VariantSite.Emitted([.. variants.Select(static v => v.Backend)]) { Labels = [.. labels.Select(NumberOf)] },
            BranchCode.NearLength);
        variants[0].Code(assembler);
        assembler.zero_bytes(); // has the label that the variant may end with
        assembler.Label(ref behind);
        assembler.zero_bytes(); // has the label, so that the host's own code behind it may have one too
        for (int i = 1; i < variants.Count; i++)
        {
            _outOfLine.Enqueue((labels[i], variants[i].Code, behind));
        }

        return ticket;
    }

    /// <summary>
    /// Emits the variants that are out of line so far. Call it where control does not come by falling through: behind a jump or a return.
    /// Those that are left are put behind the block.
    /// </summary>
    /// <param name="assembler">The sites' assembler.</param>
    /// <exception cref="PatchException">
    /// The assembler is not the one before, or a label was placed and no instruction emitted behind it (PV8014).
    /// </exception>
    public void EmitOutOfLine(Assembler assembler)
    {
        Bind(assembler);
        while (_outOfLine.TryPeek(out (Label Start, Action<Assembler> Code, Label Behind) variant))
        {
            Label start = variant.Start;
            try
            {
                assembler.Label(ref start);
            }
            catch (ArgumentException e)
            {
                throw new PatchException(Misuse("a label waits for an instruction where variants are to be put out of line") with
                {
                    Found = e.Message,
                    Help = "Emit the instruction first: control must not come to the variants by the label either.",
                });
            }

            _ = _outOfLine.Dequeue();
            assembler.zero_bytes();
            variant.Code(assembler);
            assembler.jmp(variant.Behind);
        }
    }

    /// <summary>Emits what is still to be out of line, if the assembler is the sites'.</summary>
    /// <returns>Whether there was anything: its code may hold variants of other emitters.</returns>
    internal bool EmitRest(Assembler assembler)
    {
        bool any = _outOfLine.Count > 0 && ReferenceEquals(Assembler, assembler);
        if (any)
        {
            EmitOutOfLine(assembler);
        }

        return any;
    }

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
        SitePlacement placement = length > 8 ? SitePlacement.InsideAligned16 : SitePlacement.InsideAligned8;
        _sites.Add(new EmittedSite(
            assembler.Instructions.Count, kind, placement, Forwarding: false, Start: -1,
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

/// <summary>A backend's own code at a place; see <see cref="SiteEmitter.Variants"/>.</summary>
/// <param name="Backend">The backend.</param>
/// <param name="Code">Writes the code. It may emit sites, and is written where it will stand: in place or out of line.</param>
public readonly record struct SiteVariant(Backend Backend, Action<Assembler> Code);
