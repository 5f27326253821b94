using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Tool.Output;

/// <summary>Short texts for actions, reasons and register sets.</summary>
internal static class Words
{
    /// <summary>An action in at most twelve letters.</summary>
    public static string Of(PatchAction action) => action switch
    {
        PatchAction.LeaveAlone => "left alone",
        PatchAction.Nop => "nops",
        PatchAction.Identity => "identity",
        PatchAction.Inline => "inlined",
        PatchAction.Call => "direct call",
        PatchAction.Jump => "direct jump",
        PatchAction.ThunkCall => "thunk call",
        PatchAction.Trap => "trap",
        PatchAction.CallBug => "call of BUG",
        PatchAction.Thunk => "thunk",
        PatchAction.Record => "table record",
        PatchAction.Slot => "slot word",
        PatchAction.Constant => "constant",
        _ => action.ToString(),
    };

    /// <summary>The reason why a site is left alone, as a sentence.</summary>
    public static string Of(PatchReason reason) => reason switch
    {
        PatchReason.None => "it is not left alone",
        PatchReason.TooSmall => "neither a body nor a 5-byte call or jump fits",
        PatchReason.ClobbersTooMuch => "what would be put there destroys more registers than the code around the site allows",
        PatchReason.OutOfReach => "the target is farther away than a 32-bit displacement reaches",
        PatchReason.NotACall => "there is no indirect call or jump to replace",
        PatchReason.NeedsStack => "what would be put there needs a stack, and the site has none it may use",
        PatchReason.BackendDeclines => "the backend's own patch function leaves such sites alone",
        PatchReason.RulesDecline => "the rules do nothing for such sites",
        PatchReason.ChangesWhileBooting =>
            "the slot's function changes while the kernel starts; the kernel patches the site itself afterwards",
        PatchReason.NeedsThunk => "the target must be called through a thunk, and there is no room for one",
        PatchReason.NeedsQuiescence => "it can be changed only while no thread is in the code, and does the same through its slot",
        _ => reason.ToString(),
    };

    public static Ink InkOf(PatchAction action) => action switch
    {
        PatchAction.LeaveAlone => Ink.Warning,
        PatchAction.Trap or PatchAction.CallBug => Ink.Bad,
        PatchAction.Call or PatchAction.Jump or PatchAction.ThunkCall or PatchAction.Thunk => Ink.Notice,
        _ => Ink.Good,
    };

    /// <summary>A register set, its members with blanks between them.</summary>
    public static string Of(RegisterSet set, int bitness) =>
        set.IsEmpty ? "nothing" : set.ToString(bitness).Replace(",", " ", StringComparison.Ordinal);
}
