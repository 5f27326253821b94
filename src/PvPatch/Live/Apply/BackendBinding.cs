using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// What a backend means in an arena: a body for each kind of site, a function for each slot. Made as they are asked for, under the patch
/// lock.
/// </summary>
internal sealed class BackendBinding
{
    private readonly CodeArena _arena;
    private readonly SlotTable _slots;
    private readonly LiveBodyBuilder _builder;
    private readonly VirtualAddress?[] _functions; // of each slot, once it was asked for
    private readonly RegisterSet[] _madeFor; // what the slot's sites allowed then
    private LiveBody?[] _bodies = [];
    private LiveBody?[] _inPlace = [];

    public BackendBinding(CodeArena arena, SlotTable slots, Backend backend, LiveBodyBuilder builder)
    {
        _arena = arena;
        _slots = slots;
        _builder = builder;
        _functions = new VirtualAddress?[slots.Layout.Count];
        _madeFor = new RegisterSet[slots.Layout.Count];
        Backend = backend;
    }

    public Backend Backend { get; }

    /// <summary>The body for a kind of site.</summary>
    public LiveBody Body(int kind, bool inPlace)
    {
        ref LiveBody?[] bodies = ref inPlace ? ref _inPlace : ref _bodies;
        return (uint)kind < (uint)bodies.Length && bodies[kind] is LiveBody known ? known : Build(kind, inPlace, ref bodies);
    }

    /// <summary>The function that a slot holds under this backend. It depends on what the slot's sites allow.</summary>
    /// <param name="slot">Index of the slot.</param>
    /// <param name="function">Its run address.</param>
    /// <param name="error">Why there is none.</param>
    public bool TryGetFunction(int slot, out VirtualAddress function, out PatchDiagnostic? error)
    {
        RegisterSet allowed = _slots.AllowedBy(slot);
        bool wasMade = _functions[slot] is not null && _madeFor[slot] == allowed;
        if (wasMade && Backend[slot].Target is VirtualAddress target && _arena.Ledger.BlockAt(target) is { IsRetired: true })
        {
            wasMade = false; // what it leads to is gone since
        }

        if (wasMade && _functions[slot] is VirtualAddress known)
        {
            function = known;
            error = null;
            return true;
        }

        bool made = TryMakeFunction(Backend.Layout[slot], Backend[slot], allowed, out function, out error);
        _functions[slot] = made ? function : null; // what is missing now may be there next time
        _madeFor[slot] = allowed;
        return made;
    }

    private LiveBody Build(int kind, bool inPlace, ref LiveBody?[] bodies)
    {
        PatchSite site = _slots.KindOf(kind);
        LiveBody body;
        try
        {
            body = Broken(Backend.Layout[site.Slot]) is PatchDiagnostic broken
                ? LiveBody.Failed(broken) : _builder.Build(site, Backend[site.Slot], inPlace);
            if (body.Form is LiveForm.Call or LiveForm.Jump && Backend[site.Slot] is { Target: VirtualAddress target } operation
                && !_builder.IsCode(Backend.Layout[site.Slot], target, operation.TargetName, out PatchDiagnostic? error))
            {
                body = LiveBody.Failed(error!);
            }
        }
        catch (PatchException e)
        {
            body = LiveBody.Failed(e.Diagnostic); // a body that does not assemble (PV2005)
        }

        if (kind >= bodies.Length)
        {
            Array.Resize(ref bodies, Math.Max(kind + 1, _slots.KindCount));
        }

        body = (body.Form == LiveForm.Original ? body.WithBytesOf(_slots, site) : body).ReadyFor(site);
        bodies[kind] = body.Error is null ? body : null; // what is missing now, room or a target, may be there next time
        return body;
    }

    private bool TryMakeFunction(
        OpSlot slot, Operation operation, RegisterSet allowed, out VirtualAddress function, out PatchDiagnostic? error)
    {
        error = null;
        if (slot.Kind == SlotKind.Data && operation.Target is VirtualAddress value)
        {
            function = value; // a word that nobody calls
            return true;
        }

        try
        {
            error = Broken(slot);
            if (error is not null)
            {
                function = default;
                return false;
            }

            if (!TryPlainFunction(slot, operation, out function, out RegisterSet destroys, out bool jumpsOut, out error))
            {
                return false;
            }

            RegisterSet excess = destroys.Except(allowed);
            ThunkCode call = operation.Target is null
                ? new(function, RegisterSet.None, slot.Convention) : operation.CallOf(function, slot.Convention);
            if ((excess.IsEmpty && !call.DoesMore(64)) || slot.Kind == SlotKind.Jump)
            {
                return true;
            }

            if (jumpsOut)
            {
                error = Unfit(slot, $"its body jumps out and destroys {excess}, which could only be saved around a return") with
                {
                    Help = "Let the sites of the slot allow it, or keep those registers in the body.",
                };
                return false;
            }

            if (excess.Contains(RegisterSet.Vector) && !_arena.Functions.SavesVector)
            {
                error = Unfit(slot, $"it destroys {excess}, and the arena's thunks do not save vector state") with
                {
                    Help = "Reserve the arena with ArenaOptions.SaveVectorState, let the sites of the slot allow it, or say what the "
                        + "target really destroys (Operation.Call, destroys).",
                };
                return false;
            }

            return _arena.Functions.TryGetThunk(call with { Saves = excess }, out function, out error);
        }
        catch (PatchException e)
        {
            function = default;
            error = e.Diagnostic;
            return false;
        }
    }

    /// <summary>Why an operation does not keep to its slot's convention.</summary>
    private PatchDiagnostic? Broken(OpSlot slot)
    {
        Operation operation = Backend[slot.Index];
        return ConventionContract.Check(slot, operation, _builder.Templates, 64)
            ?? ConventionContract.CheckTarget(slot, operation, _builder.CodeAt(slot, operation.Target));
    }

    private bool TryPlainFunction(
        OpSlot slot, Operation operation, out VirtualAddress function, out RegisterSet destroys, out bool jumpsOut,
        out PatchDiagnostic? error)
    {
        function = default;
        jumpsOut = false;
        destroys = RegisterSet.None;
        error = null;
        if (operation.Target is VirtualAddress target)
        {
            function = target;
            destroys = operation.DestroysBy(operation.CallOf(target, slot.Convention), 64);
            return _builder.IsCode(slot, target, operation.TargetName, out error);
        }

        if (operation.Kind == OperationKind.Missing)
        {
            function = _slots.TrapOf(slot.Index);
            return true;
        }

        AssembledBody? body = operation.Kind switch
        {
            OperationKind.Nop => null,
            OperationKind.Identity32 or OperationKind.Identity64 when slot.Convention.ReturnsArgumentInPlace(64) => null,
            OperationKind.Identity32 => _builder.Templates.IdentityBody(slot.Convention, wide: false),
            OperationKind.Identity64 => _builder.Templates.IdentityBody(slot.Convention, wide: true),
            _ => _builder.Templates.Body(operation.Body!, slot.Convention),
        };
        destroys = body?.Destroys ?? RegisterSet.None;
        if (slot.Kind == SlotKind.Jump && body is not { EndsControlFlow: true })
        {
            error = Unfit(slot, "code jumps to the slot, and the body goes on behind the site");
        }

        var form = new BodyFunction(body, called: slot.Kind != SlotKind.Jump);
        jumpsOut = form.JumpsOut;
        error ??= form.Unfit is null ? null : Unfit(slot, form.Unfit);
        return error is null && _arena.Functions.TryGet(form, out function, out error);
    }

    private static PatchDiagnostic Unfit(OpSlot slot, string why) =>
        PatchDiagnostic.Error(DiagnosticCodes.SlotFunction, $"the operation of {slot} can't be put into its slot: {why}") with
        {
            Help = "Give the operation a target (WithTarget): the function that sites call while they are indirect.",
        };
}
