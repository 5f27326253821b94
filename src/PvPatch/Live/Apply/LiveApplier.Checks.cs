using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <content>Whether a batch may be: asked before the lock is taken, under it, and of the executors.</content>
internal sealed partial class LiveApplier
{
    private PatchDiagnostic? Check(LiveChanges changes, SwitchOptions options, LivePlan? promised = null)
    {
        if (Disposed() is PatchDiagnostic disposed)
        {
            return disposed;
        }

        if (promised is not null && !ReferenceEquals(promised.Patcher, _slots.Patcher))
        {
            return PatchDiagnostic.Error(DiagnosticCodes.PlanStale, "the plan was made by another patcher");
        }

        foreach (LiveChange change in changes.List)
        {
            if (change.Backend is not null && !ReferenceEquals(change.Backend.Layout, _slots.Layout))
            {
                return PatchDiagnostic.Error(DiagnosticCodes.WrongLayout,
                    $"the backend \"{change.Backend.Name}\" was made for another layout") with
                {
                    Found = change.Backend.Layout.Name,
                    Expected = _slots.Layout.Name
                };
            }

            if (change.Scope.OnlySlot is not null && !_slots.IsOwn(change.Scope.OnlySlot))
            {
                return _slots.NotOwn(change.Scope.OnlySlot);
            }
        }

        // New blocks may be bound from inside: a translator called by the code it translates does so.
        if (!changes.OnlyBinds && _arena.Executors.InsideOnThisThread() is Executor inside)
        {
            return PatchDiagnostic.Error(DiagnosticCodes.InsideGeneratedCode,
                $"this thread is inside generated code (executor {inside.Name}), perhaps in the very site") with
            {
                Help =
                    "Patch from another thread, or leave the code first: note the wish in the helper and act on it in the dispatch loop.",
            };
        }

        if (options.Mode == SwitchMode.Live && _arena.Barrier == BarrierKind.None)
        {
            return PatchDiagnostic.Error(
                DiagnosticCodes.NoBarrier, "there is no barrier on this system, so nothing can be changed under running threads") with
            {
                Help = "Switch with SwitchMode.Quiescent.",
            };
        }

        return null;
    }

    private PatchDiagnostic? Disposed() =>
        IsDisposed ? PatchDiagnostic.Error(DiagnosticCodes.ArenaDisposed, "the patcher was disposed of")
        : _arena.Memory.IsDisposed ? ArenaMemory.Disposed()
        : null;

    /// <summary>What another thread could have changed before the lock was taken.</summary>
    private PatchDiagnostic? CheckHeld(LiveChanges changes)
    {
        // Asked again under the lock: who disposed of the patcher meanwhile may have given the slots to another.
        if (Disposed() is PatchDiagnostic disposed)
        {
            return disposed;
        }

        foreach (ref readonly SettingChange change in CollectionsMarshal.AsSpan(changes.Settings))
        {
            if (_claims.Add(change.Setting) is PatchDiagnostic foreign)
            {
                return foreign;
            }
        }

        foreach (LiveChange change in changes.List)
        {
            // By index: an enumerator of an interface is an object, and most batches are small.
            for (int i = 0; i < change.Links.Count; i++)
            {
                if (change.Links[i].Site.Block is var block && !IsOurs(block))
                {
                    return NotOurs(block);
                }
            }

            for (int i = 0; i < (change.Scope.OnlySites?.Count ?? 0); i++)
            {
                if (change.Scope.OnlySites![i].Block is var block && !IsOurs(block))
                {
                    return NotOurs(block);
                }
            }

            for (int i = 0; i < (change.Scope.OnlyBlocks?.Count ?? 0); i++)
            {
                if (change.Scope.OnlyBlocks![i] is var block && !IsOurs(block))
                {
                    return NotOurs(block);
                }
            }

            // What links lead into may be anybody's block.
            for (int i = 0; i < (change.Scope.LinkTargets?.Count ?? 0); i++)
            {
                if (change.Scope.LinkTargets![i] is var block && block is not { IsRetired: false })
                {
                    return NotOurs(block);
                }
            }
        }

        return null;
    }

    // A block without sites has nothing to bind, whoever emitted it.
    private bool IsOurs([NotNullWhen(true)] CodeBlock? block) =>
        block is { IsRetired: false }
            && (ReferenceEquals(block.Slots, _slots) || (block.SiteCount == 0 && ReferenceEquals(block.Arena, _arena)));

    private static PatchDiagnostic NotOurs(CodeBlock? block) =>
        PatchDiagnostic.Error(DiagnosticCodes.BlockRetired,
            block is { IsRetired: true } ? "the block was retired" : "the block is another arena's or layout's") with
        {
            Address = block?.Address,
        };

    private PatchDiagnostic? Quiesce(LiveChanges changes, SwitchOptions options, ApplyReport report, ref bool closed)
    {
        Executor? inside = null;
        if (options.Mode == SwitchMode.Quiescent && _arena.Executors.IsTracking)
        {
            closed = _arena.Executors.TryCloseGate(RunGateBarrier, options.Timeout, options.Cancellation, out inside);
        }
        else if (options.Mode == SwitchMode.NotEntered && !changes.OnlyBinds)
        {
            inside = _arena.Executors.Inside();
        }

        return inside is null
            ? null : PatchDiagnostic.Error(DiagnosticCodes.NotQuiescent, $"executor {inside.Name} is inside generated code") with
            {
                Found = options.Mode != SwitchMode.Quiescent ? null
                : options.Cancellation.IsCancellationRequested ? "still, when the wait was cancelled"
                : $"still, after {options.Timeout.TotalMilliseconds:0} ms",
                Help = "Let executors leave or call Safepoint now and then; wait longer (SwitchOptions.Timeout); or switch live.",
            };

        // Without it an executor might enter and not see the gate, and not be seen: a barrier that fails must be replaced.
        bool RunGateBarrier()
        {
            LiveStores.RunBarrier(_arena, report);
            return true;
        }
    }
}
