using System.Collections.Concurrent;
using System.Globalization;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>Decides what is done at a site, from slot, operation, site and rules alone. Pure: sees neither image nor address.</summary>
internal sealed class OpsDecider
{
    private const int BranchLength = 5; // e8/e9 rel32

    private readonly PatchRules _rules;
    private readonly PlanOptions _options;
    private readonly TemplateStore _templates;
    private readonly int _bitness;
    private readonly RegisterSet _any;
    private readonly bool _savesVector;

    /// <summary>What refusals say, by what is destroyed: many kinds of site are refused for the same.</summary>
    private readonly ConcurrentDictionary<uint, string> _details = new();

    /// <summary>Makes a decider.</summary>
    /// <param name="options">What the plan's caller says.</param>
    /// <param name="templates">What is assembled.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="savesVector">Whether thunks can save vector state: where the processor that runs them is known.</param>
    public OpsDecider(PlanOptions options, TemplateStore templates, int bitness, bool savesVector = false)
    {
        _savesVector = savesVector;
        _rules = options.Rules;
        _options = options;
        _templates = templates;
        _bitness = bitness;
        _any = bitness == 64 ? _rules.AnyClobbers64 : _rules.AnyClobbers32;
    }

    /// <summary>The decision for a slot's operation at a site. The site's address plays no part.</summary>
    public Decision Decide(OpSlot slot, Operation operation, PatchSite site)
    {
        if (_rules.UsesBackendPatchFunction && operation.IsLeftAloneByBackend)
        {
            return Decision.LeaveAlone(PatchReason.BackendDeclines);
        }

        if (ConventionContract.Check(slot, operation, _templates, _bitness) is PatchDiagnostic broken)
        {
            return Decision.Fail(broken);
        }

        // The kernel's patch functions look for a body before anything else; a body has no competition from the other kinds under
        // Default either, so there is one order for all rules.
        Decision? inline = operation.Body is null ? null : TryInline(slot, operation, site);
        if (inline is { Reason: PatchReason.None })
        {
            return inline;
        }

        if (inline is not null && !GoesOn(operation, inline.Reason))
        {
            return inline;
        }

        if (!_rules.HasDefault)
        {
            return inline ?? Decision.LeaveAlone(PatchReason.RulesDecline);
        }

        return DecideDefault(slot, operation, site, inline);
    }

    private Decision DecideDefault(OpSlot slot, Operation operation, PatchSite site, Decision? inline)
    {
        switch (operation.Kind)
        {
            case OperationKind.Missing:
                return Missing(slot, site);
            case OperationKind.Nop:
                return new Decision
                {
                    Action = PatchAction.Nop,
                    Template = _templates.Nops(site.Budget),
                    TargetName = operation.TargetName
                };
            case OperationKind.Identity32 when _rules.InlinesIdentity32:
            case OperationKind.Identity64 when _rules.InlinesIdentity64:
                Decision identity = Identity(slot, operation, site);
                return identity.Action != PatchAction.LeaveAlone || operation.Target is null
                    ? identity : Branch(slot, operation, site, identity);
            default:
                return operation.Target is null ? inline ?? Missing(slot, site) : Branch(slot, operation, site, inline);
        }
    }

    private bool GoesOn(Operation operation, PatchReason reason) =>
        _rules.BodyTooLong == TooLongRule.TryNext
        || (reason == PatchReason.TooSmall && _rules.UsesBackendPatchFunction && operation.DefaultsWhereTooLong);

    private Decision? TryInline(OpSlot slot, Operation operation, PatchSite site)
    {
        InlineRule rule = _rules.ByPointerSlots.Contains(slot.Name) ? InlineRule.ByPointer : _rules.Inline;
        bool standsForTarget = operation.StandsFor is null || operation.StandsFor == operation.Target;
        if (rule == InlineRule.Never || (rule == InlineRule.ByPointer && !standsForTarget))
        {
            return operation.Target is null ? Decision.LeaveAlone(PatchReason.RulesDecline) : null;
        }

        AssembledBody body = _templates.Body(operation.Body!, slot.Convention);
        if (body.Bytes.Length > site.Budget)
        {
            string detail = string.Create(CultureInfo.InvariantCulture, $"the body has {body.Bytes.Length} bytes");
            return _rules.BodyTooLong == TooLongRule.Stop && !operation.DefaultsWhereTooLong
                ? Stop(slot, site, detail)
                : Decision.LeaveAlone(PatchReason.TooSmall, detail);
        }

        if (_rules.ChecksBodyClobbers && Weigh(slot, site, body.Destroys, body.UsesStack) is Decision refusal)
        {
            return refusal;
        }

        PatchAction action = operation.Body == InlineBody.Nothing ? PatchAction.Nop : PatchAction.Inline;
        return new Decision
        {
            Action = action,
            Template = _templates.Inline(operation.Body!, slot.Convention, site.Budget),
            TargetName = operation.TargetName
        };
    }

    private Decision Missing(OpSlot slot, PatchSite site)
    {
        if (_rules.MissingCallsBug)
        {
            if (_options.BugTarget is not VirtualAddress bug)
            {
                return new Decision
                {
                    Action = PatchAction.LeaveAlone,
                    Failed = PatchDiagnostic.Error(DiagnosticCodes.RulesNeedAddress,
                        $"the rules {_rules.Name} call a BUG function where an operation is missing ({slot.Name}), and its address is "
                        + $"not known") with
                    {
                        Help = "Give the address of paravirt_BUG.",
                    },
                };
            }

            return _bitness == 32 && bug.Value > uint.MaxValue
                ? Decision.LeaveAlone(PatchReason.OutOfReach, "32-bit code cannot reach above 4 GiB")
                : site.Budget < BranchLength ? Stop(slot, site, "a call has 5 bytes")
                : new Decision
                {
                    Action = PatchAction.CallBug,
                    Template = _templates.Call(bug, site.Budget),
                    Target = bug,
                    TargetName = _options.BugTargetName
                };
        }

        return site.Budget < 2
            ? Decision.LeaveAlone(PatchReason.TooSmall, "a trap has 2 bytes")
            : new Decision { Action = PatchAction.Trap, Template = _templates.Trap(site.Budget) };
    }

    private Decision Identity(OpSlot slot, Operation operation, PatchSite site)
    {
        bool wide = operation.Kind == OperationKind.Identity64;
        CallConvention convention = slot.Convention;
        if (convention.ReturnsArgumentInPlace(_bitness))
        {
            return new Decision
            {
                Action = PatchAction.Identity,
                Template = _templates.Nops(site.Budget),
                TargetName = operation.TargetName
            };
        }

        AssembledBody body = _templates.IdentityBody(convention, wide);
        if (body.Bytes.Length > site.Budget)
        {
            return Decision.LeaveAlone(PatchReason.TooSmall);
        }

        if (_rules.ChecksBodyClobbers && Weigh(slot, site, body.Destroys, body.UsesStack) is Decision refusal)
        {
            return refusal;
        }

        return new Decision
        {
            Action = PatchAction.Identity,
            Template = _templates.Identity(convention, wide, site.Budget),
            TargetName = operation.TargetName
        };
    }

    private Decision Branch(OpSlot slot, Operation operation, PatchSite site, Decision? before)
    {
        VirtualAddress target = operation.Target!.Value;
        if (_bitness == 32 && target.Value > uint.MaxValue)
        {
            return Decision.LeaveAlone(PatchReason.OutOfReach, "32-bit code cannot reach above 4 GiB"); // rel32 would wrap to another place
        }

        bool jump = _rules.JumpSlots?.Contains(slot.Name) ?? (slot.Kind == SlotKind.Jump || operation.Kind == OperationKind.Jump);
        if (site.Budget < BranchLength)
        {
            TooLongRule rule = jump ? _rules.JumpTooLong : _rules.CallTooLong;
            return rule == TooLongRule.Stop ? Stop(slot, site, "a call has 5 bytes") : before ?? Decision.LeaveAlone(PatchReason.TooSmall);
        }

        if (jump)
        {
            return new Decision
            {
                Action = PatchAction.Jump,
                Template = _templates.Jump(target, site.Budget),
                Target = target,
                TargetName = operation.TargetName
            };
        }

        if (_rules.ChecksBodyClobbers && !HasStack(slot, site))
        {
            return Decision.LeaveAlone(PatchReason.NeedsStack);
        }

        ThunkCode call = operation.CallOf(target, slot.Convention);
        RegisterSet destroys = operation.DestroysBy(call, _bitness);
        RegisterSet excess = _rules.ChecksTargetClobbers ? destroys.Except(site.Clobbers) : _any.Except(site.Clobbers | RegisterSet.Flags);
        bool doesMore = call.DoesMore(_bitness);
        if (excess.IsEmpty && !doesMore)
        {
            return new Decision
            {
                Action = PatchAction.Call,
                Template = _templates.Call(target, site.Budget),
                Target = target,
                TargetName = operation.TargetName
            };
        }

        string? detail = excess.IsEmpty ? null : DestroysToo(excess);
        if (!_rules.UsesThunks || _options.Thunks is null || (excess.Contains(RegisterSet.Vector) && !_savesVector))
        {
            return Decision.LeaveAlone(detail is null ? PatchReason.NeedsThunk : PatchReason.ClobbersTooMuch, detail);
        }

        return new Decision
        {
            Action = PatchAction.ThunkCall,
            Target = target,
            TargetName = operation.TargetName,
            Detail = (call with { Saves = excess }).Describe(_bitness),
            Thunk = call with { Saves = excess },
        };
    }

    private Decision? Weigh(OpSlot slot, PatchSite site, RegisterSet destroys, bool usesStack)
    {
        RegisterSet excess = destroys.Except(site.Clobbers);
        return !excess.IsEmpty ? Decision.LeaveAlone(PatchReason.ClobbersTooMuch, DestroysToo(excess))
            : usesStack && !HasStack(slot, site) ? Decision.LeaveAlone(PatchReason.NeedsStack)
            : null;
    }

    private string DestroysToo(RegisterSet excess) =>
        _details.TryGetValue(excess.Bits, out string? known) ? known
        : _details.GetOrAdd(excess.Bits, $"destroys {excess.ToString(_bitness)} too");

    private static bool HasStack(OpSlot slot, PatchSite site) =>
        (site.Traits & SiteTraits.NoStack) == 0 && slot.Convention.HasStack;

    private Decision Stop(OpSlot slot, PatchSite site, string detail) => new()
    {
        Action = PatchAction.LeaveAlone,
        Reason = PatchReason.TooSmall,
        Failed = PatchDiagnostic.Error(
            DiagnosticCodes.KernelWouldStop, $"a kernel of {_rules.Name} would stop at this site of {slot.Name}") with
        {
            Found = $"a site of {site.Budget} bytes",
            Expected = detail,
            Help = "Choose the rules of the kernel the site table is from.",
        },
    };
}
