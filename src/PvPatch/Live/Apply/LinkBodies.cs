using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// What linked sites hold: a direct call or jump, through a thunk where the target destroys too much, through a stub where it is out of
/// reach. One shape for each kind of
/// site, however many targets. Used under the patch lock.
/// </summary>
internal sealed class LinkBodies(CodeArena arena, SlotTable slots, LiveBodyBuilder builder)
{
    private readonly ExecutableTest _test = new(arena);
    private readonly Dictionary<(int Kind, RegisterSet? Destroys), (LiveBody Body, RegisterSet Saves)> _shapes = [];

    /// <summary>The body for a link.</summary>
    /// <param name="link">A site of these slots and a target.</param>
    /// <param name="body">The body.</param>
    /// <param name="entry">Where its displacement leads: the target, or what stands before it. Always in reach.</param>
    /// <param name="error">Why the site can't lead there.</param>
    public bool TryGet(SiteLink link, out LiveBody body, out VirtualAddress entry, out PatchDiagnostic? error)
    {
        int number = link.Site.Record.Kind;
        PatchSite kind = slots.Kinds[number];
        OpSlot slot = slots.Layout[kind.Slot];
        VirtualAddress target = link.Target!.Value;
        entry = target;
        if (!_test.IsCode(target))
        {
            body = LiveBody.Indirect(PatchReason.None, null);
            error = ExecutableTest.NotCode(slot, target, null);
            return false;
        }

        if (arena.Ledger.BlockAt(target) is { IsRetired: true })
        {
            body = LiveBody.Indirect(PatchReason.None, null);
            error = LinkLedger.Retired(link.Site, target);
            return false;
        }

        if (kind.Budget > SiteClassifier.MaxLiveLength)
        {
            return TryGetLong(link, kind, out body, ref entry, out error);
        }

        if (!_shapes.TryGetValue((number, link.Destroys), out (LiveBody Body, RegisterSet Saves) shape))
        {
            LiveBody built = builder.BuildBranch(kind, link.Destroys, out RegisterSet saves).ReadyFor(kind);
            shape = (built, saves);
            _shapes.Add((number, link.Destroys), shape);
        }

        body = shape.Body;
        error = null;
        if (body.Form == LiveForm.Original)
        {
            error = Unfit(link, slot, body);
        }
        else if (!shape.Saves.IsEmpty)
        {
            // The thunk calls, and is in the arena: where no place of that reaches the target for certain, it calls the stub.
            _ = (arena.Reaches(target) || arena.Functions.TryGetFar(target, out entry, out error))
                && arena.Functions.TryGetThunk(new ThunkRequest(entry, shape.Saves, slot.Convention), out entry, out error);
        }
        else if (!body.TryFinish(link.Site.End, target, out _))
        {
            _ = arena.Functions.TryGetFar(target, out entry, out error);
        }

        return error is null;
    }

    private bool TryGetLong(SiteLink link, PatchSite kind, out LiveBody body, ref VirtualAddress entry, out PatchDiagnostic? error)
    {
        error = null;
        body = LiveBody.Indirect(PatchReason.None, null);
        if (!arena.Reaches(entry) && !arena.Functions.TryGetFar(entry, out entry, out error))
        {
            return false;
        }

        body = builder.Build(kind, Operation.Call(entry, destroys: link.Destroys), inPlace: false).ReadyFor(kind);
        error = body.Error ?? (body.Form == LiveForm.Original ? Unfit(link, slots.Layout[kind.Slot], body) : null);
        return error is null;
    }

    private static PatchDiagnostic Unfit(SiteLink link, OpSlot slot, LiveBody body) =>
        PatchDiagnostic.Error(DiagnosticCodes.SiteLink, $"the site of {slot} can't lead to the target: {body.Reason}{(body.Detail is null ? "" : $", {body.Detail}")}") with
        {
            SiteIndex = link.Site.Index,
            Address = link.Site.Address,
            Found = link.Target.ToString(),
            Help = "Let the site allow more, or say what the target really destroys (SiteLink.Destroys).",
        };
}
