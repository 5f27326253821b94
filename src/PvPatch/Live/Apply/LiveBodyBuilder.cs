using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// Turns the planner's decision into a form that can be written under running threads: one instruction that fills the site, or a jump to an
/// island. Decides
/// nothing by itself: the decision is the same as offline, with as much room as an island has.
/// </summary>
internal sealed class LiveBodyBuilder
{
    private const int BranchLength = 5;

    // e8, e9 and the room for a displacement.
    private static readonly byte[] s_call = [0xe8, 0, 0, 0, 0];
    private static readonly byte[] s_jump = [0xe9, 0, 0, 0, 0];
    private static readonly byte[] s_trap = [0x0f, 0x0b]; // ud2

    // For links that are refused. There may be thousands in a batch, and most are not: none is made for each.
    private static readonly LiveBody s_none = LiveBody.Indirect(PatchReason.None, null);

    private readonly CodeArena _arena;
    private readonly SlotTable _slots;
    private readonly OpsLayout _layout;
    private readonly TemplateStore _templates = new(64, NopStyle.P6);
    private readonly OpsDecider _decider;
    private readonly Dictionary<(int Kind, RegisterSet? Destroys), (LiveBody Body, ThunkCode? Thunk)> _links = [];
    private readonly Dictionary<(int, RegisterSet?, CallConvention?, int?), (LiveBody Body, ThunkCode? Thunk)> _thunkLinks = [];
    private Predicate<VirtualAddress>? _executable;

    /// <summary>Makes a builder for the sites and slots of one layout. Used under the patch lock.</summary>
    public LiveBodyBuilder(CodeArena arena, SlotTable slots)
    {
        _arena = arena;
        _slots = slots;
        _layout = slots.Layout;

        // The whole arena is room for thunks.
        var options = new PlanOptions { Thunks = new AddressRange(arena.Address, arena.Size) };
        _decider = new OpsDecider(options, _templates, 64, arena.Functions.SavesVector);
    }

    public TemplateStore Templates => _templates;

    /// <summary>Whether a target is executable memory; if not, a finding says so.</summary>
    public bool IsCode(OpSlot slot, VirtualAddress target, string? name, out PatchDiagnostic? error)
    {
        error = IsCode(target) ? LinkLedger.CheckTarget(_arena.Ledger.BlockAt(target), slot.ToString(), target)
            : NoCode(slot.ToString(), target) with { Found = name };
        return error is null;
    }

    /// <summary>The block a target is in, where what it does is of interest.</summary>
    public CodeImage? CodeAt(OpSlot slot, VirtualAddress? target) =>
        slot.Convention.IsOfHost && target is VirtualAddress at && _arena.Ledger.BlockAt(at) is CodeBlock block
            ? new CodeImage(block.Address, block.ToArray()) : null;

    /// <summary>Whether a target is executable memory; of an arena's what is in use.</summary>
    public bool IsCode(VirtualAddress target) =>
        _arena.Memory.Contains(target, 1) ? _arena.Memory.IsCodeInUse(target) : CodeArena.IsCodeInUse(target) ?? IsExecutable(target);

    /// <summary>A target is not executable memory.</summary>
    public static PatchDiagnostic NoCode(string user, VirtualAddress target) =>
        PatchDiagnostic.Error(DiagnosticCodes.TargetNotExecutable, $"the target of {user} is not executable memory") with
        {
            Address = target,
            Help = "Give the address of native code, or of an UnmanagedCallersOnly method (ManagedTarget).",
        };

    // Also where the system does not tell. The list of mappings is read when it is needed, and once more before a target is refused: it may
    // be younger than the list.
    private bool IsExecutable(VirtualAddress address)
    {
        if (_executable?.Invoke(address) == true)
        {
            return true;
        }

        _executable = _arena.Platform.ExecutableTest();
        return _executable?.Invoke(address) ?? true;
    }

    /// <summary>The body for a kind of site.</summary>
    /// <param name="kind">The kind.</param>
    /// <param name="operation">What its slot does.</param>
    /// <param name="inPlace">Whether a body of several instructions may stand in the site itself.</param>
    public LiveBody Build(PatchSite kind, Operation operation, bool inPlace)
    {
        OpSlot slot = _slots.SlotOf(kind);
        operation = SeenFrom(kind, operation);
        if (operation.IsLeftAloneByBackend)
        {
            // Offline such a site keeps what the image has; here it gets back what it was emitted with, and the slot does the operation.
            return LiveBody.Indirect(PatchReason.BackendDeclines, null);
        }

        int room = kind.Budget >= BranchLength ? PatchSite.MaxBudget : kind.Budget;
        Decision decision = _decider.Decide(
            slot, operation, new PatchSite(VirtualAddress.Zero, kind.Slot, room, kind.Clobbers, kind.Traits));
        if (decision.Failed is not null)
        {
            return LiveBody.Failed(decision.Failed);
        }

        if (kind.Budget > SiteRecord.MaxLiveLength)
        {
            return BuildLong(slot, kind, operation);
        }

        switch (decision.Action)
        {
            case PatchAction.LeaveAlone:
                return LiveBody.Indirect(decision.Reason, decision.Detail);
            case PatchAction.Nop:
                return Nop(kind, decision.Action);
            case PatchAction.Identity when kind.HasArgument:
                bool wide = operation.Kind == OperationKind.Identity64;
                LiveBody move = Inline(kind, _templates.IdentityBody(slot.Convention, wide), decision, inPlace: null);
                return slot.Convention.ReturnsArgumentInPlace(64)
                    ? Nop(kind, decision.Action) with { Reads = move.Reads, OutOfLine = move.OutOfLine } : move;
            case PatchAction.Identity:
                CodeTemplate identity = decision.Template!;
                return identity.BodyLength == 0
                    ? Nop(kind, decision.Action) : Padded(kind, identity.Bytes[..identity.BodyLength], decision, LiveForm.OneInstruction);
            case PatchAction.Inline:
                return Inline(kind, _templates.Body(operation.Body!, slot.Convention), decision, inPlace ? (slot, operation) : null);
            case PatchAction.Call:
                return Padded(kind, s_call, decision, LiveForm.Call, decision.Target);
            case PatchAction.Jump:
                return Padded(kind, s_jump, decision, LiveForm.Jump, decision.Target);
            case PatchAction.ThunkCall:
                return _arena.Functions.TryGetThunk(decision.Thunk!.Value, out VirtualAddress thunk, out PatchDiagnostic? error)
                    ? Padded(kind, s_call, decision, LiveForm.Call, thunk)
                    : LiveBody.Failed(error!);
            default:
                return Padded(kind, s_trap, decision, LiveForm.OneInstruction);
        }
    }

    /// <summary>
    /// What a linked site holds: a direct call or jump, through a thunk where the target destroys too much, through a far jump where it is
    /// out of reach. One shape for each kind of site, however many targets.
    /// </summary>
    /// <param name="link">A site of these slots and a target.</param>
    /// <param name="body">The body.</param>
    /// <param name="entry">Where its displacement leads: the target, or what stands before it. Always in reach.</param>
    /// <param name="error">Why the site can't lead there.</param>
    public bool TryGetLink(SiteLink link, out LiveBody body, out VirtualAddress entry, out PatchDiagnostic? error)
    {
        int number = link.Site.Record.Kind;
        PatchSite kind = _slots.KindOf(number);
        OpSlot slot = _slots.Layout[kind.Slot];
        VirtualAddress target = link.Target!.Value;
        entry = target;
        body = s_none;
        error = link.IsPlain ? null : ConventionContract.Check(slot, link.CallOf(target), _templates, 64);
        error ??= ConventionContract.CheckTarget(
            slot, target, link.Destroys is not null || link.TargetConvention is not null, CodeAt(slot, target));
        if (error is not null || !IsCode(slot, target, null, out error))
        {
            return false;
        }

        if (kind.Budget > SiteRecord.MaxLiveLength)
        {
            return TryGetLongLink(link, kind, out body, ref entry, out error);
        }

        (body, ThunkCode? shape) = ShapeOf(number, kind, link);
        error = null;
        if (body.Form == LiveForm.Original)
        {
            error = UnfitLink(link, slot, body);
        }
        else if (shape is ThunkCode thunk)
        {
            _ = _arena.Functions.TryGetThunk(thunk with { Target = target }, out entry, out error);
        }
        else if (kind.HasArgument ? !_arena.Reaches(target) : !body.TryFinish(link.Site.End, target, out _))
        {
            _ = _arena.Functions.TryGetFar(target, out entry, out error);
        }

        return error is null;
    }

    /// <summary>What sites of a kind hold that are linked in one way, whatever the target, and the thunk before it.</summary>
    private (LiveBody Body, ThunkCode? Thunk) ShapeOf(int number, PatchSite kind, in SiteLink link)
    {
        (LiveBody Body, ThunkCode? Thunk) shape;
        if (link.IsPlain)
        {
            if (!_links.TryGetValue((number, link.Destroys), out shape))
            {
                _links.Add((number, link.Destroys), shape = BuildBranch(kind, link));
            }

            return shape;
        }

        (int, RegisterSet?, CallConvention?, int?) key = (number, link.Destroys, link.TargetConvention, link.CallerArgument);
        if (!_thunkLinks.TryGetValue(key, out shape))
        {
            _thunkLinks.Add(key, shape = BuildBranch(kind, link));
        }

        return shape;
    }

    /// <summary>A direct call, or a jump where the slot is one, at sites of a kind: not longer than one instruction.</summary>
    private (LiveBody Body, ThunkCode? Thunk) BuildBranch(PatchSite kind, in SiteLink link)
    {
        // What the target is does not matter for the decision.
        Operation call = SeenFrom(kind, link.CallOf(_arena.Native.Trap));
        Decision decision = _decider.Decide(_slots.SlotOf(kind), call, kind);
        LiveBody body = decision.Action switch
        {
            PatchAction.Call or PatchAction.ThunkCall => Padded(kind, s_call, decision, LiveForm.Call),
            PatchAction.Jump => Padded(kind, s_jump, decision, LiveForm.Jump),
            _ => LiveBody.Indirect(decision.Reason, decision.Detail),
        };
        return (body.ReadyFor(kind), decision.Thunk);
    }

    /// <summary>An operation as sites with operands of their own see it: its target is called by the slot's convention.</summary>
    private Operation SeenFrom(PatchSite kind, Operation operation) =>
        kind.Convention == 0 || operation.Target is null || operation.TargetConvention is not null
            ? operation : operation.CalledBy(_layout[kind.Slot].Convention);

    private bool TryGetLongLink(SiteLink link, PatchSite kind, out LiveBody body, ref VirtualAddress entry, out PatchDiagnostic? error)
    {
        error = null;
        body = s_none;
        if (!_arena.Reaches(entry) && !_arena.Functions.TryGetFar(entry, out entry, out error))
        {
            return false;
        }

        body = Build(kind, link.CallOf(entry), inPlace: false).ReadyFor(kind);
        error = body.Error ?? (body.Form == LiveForm.Original ? UnfitLink(link, _slots.Layout[kind.Slot], body) : null);
        return error is null;
    }

    private static PatchDiagnostic UnfitLink(SiteLink link, OpSlot slot, LiveBody body) =>
        PatchDiagnostic.Error(DiagnosticCodes.SiteLink,
            $"the site of {slot} can't lead to the target: {body.Reason}{(body.Detail is null ? "" : $", {body.Detail}")}") with
        {
            SiteIndex = link.Site.Index,
            Address = link.Site.Address,
            Found = link.Target.ToString(),
            Help = "Let the site allow more, or say what the target really destroys (SiteLink.Destroys).",
        };

    private static LiveBody Nop(PatchSite kind, PatchAction action)
    {
        Span<byte> bytes = stackalloc byte[kind.Budget];
        PrefixPadding.WriteNop(bytes);
        return new LiveBody { Form = LiveForm.OneInstruction, Action = action, Bytes = SiteBytes.From(bytes) };
    }

    private LiveBody Inline(PatchSite kind, AssembledBody body, Decision decision, (OpSlot Slot, Operation Operation)? inPlace)
    {
        Span<byte> bytes = stackalloc byte[kind.Budget];
        if (body.InstructionCount == 1 && body.Bytes.Length <= kind.Budget && PrefixPadding.TryPad(body.Bytes.Span, bytes))
        {
            CodeFixup? fixup = body.Fixups.Count == 0 ? null : body.Fixups[0];
            return new LiveBody
            {
                Form = LiveForm.OneInstruction,
                Action = decision.Action,
                Bytes = SiteBytes.From(bytes),
                Field = fixup is null ? -1 : fixup.Value.Offset + kind.Budget - body.Bytes.Length,
                Target = fixup?.Target ?? default,
                Reads = body.Reads,
                OutOfLine = kind.HasArgument ? Island(kind, body, decision) : null,
            };
        }

        if (inPlace is (OpSlot slot, Operation operation) && !kind.HasArgument && body.Bytes.Length <= kind.Budget)
        {
            return new LiveBody
            {
                Form = LiveForm.InPlace,
                Action = decision.Action,
                InPlace = _templates.Inline(operation.Body!, slot.Convention, kind.Budget),
            };
        }

        return Island(kind, body, decision);
    }

    private LiveBody Island(PatchSite kind, AssembledBody body, Decision decision) =>
        kind.Budget < BranchLength
            ? LiveBody.Indirect(PatchReason.TooSmall, "several instructions go into an island, and a jump has 5 bytes")
            : Padded(kind, s_jump, decision, LiveForm.Island) with { Island = _arena.Islands.NumberOf(body) };

    private static LiveBody Padded(
        PatchSite kind, ReadOnlySpan<byte> instruction, Decision decision, LiveForm form, VirtualAddress? target = null)
    {
        Span<byte> bytes = stackalloc byte[kind.Budget];
        int before = kind.Budget - instruction.Length;
        if (before < 0)
        {
            return LiveBody.Indirect(PatchReason.TooSmall, decision.Detail);
        }

        // cs before a call, a jump, a move or ud2 does nothing; Linux fills its 6-byte sites in the same way.
        bytes[..before].Fill(PrefixPadding.Cs);
        instruction.CopyTo(bytes[before..]);
        bool branch = form is LiveForm.Call or LiveForm.Jump or LiveForm.Island;
        return new LiveBody
        {
            Form = form,
            Action = decision.Action,
            Detail = decision.Detail,
            Bytes = SiteBytes.From(bytes),
            Field = branch ? kind.Budget - 4 : -1,
            Target = target ?? default,
        };
    }

    /// <summary>Sites of more than 15 bytes are changed at quiescence only, so they may hold what they hold offline.</summary>
    private LiveBody BuildLong(OpSlot slot, PatchSite kind, Operation operation)
    {
        Decision decision = _decider.Decide(slot, operation, kind);
        CodeTemplate? template = decision.Template;
        if (decision.Thunk is ThunkCode request)
        {
            if (!_arena.Functions.TryGetThunk(request, out VirtualAddress thunk, out PatchDiagnostic? error))
            {
                return LiveBody.Failed(error!);
            }

            template = _templates.Call(thunk, kind.Budget);
        }

        return template is null
            ? LiveBody.Indirect(decision.Reason, decision.Detail)
            : new LiveBody { Form = LiveForm.InPlace, Action = decision.Action, Detail = decision.Detail, InPlace = template };
    }
}
