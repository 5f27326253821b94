using System.Globalization;
using System.Text;

namespace PvPatch.Plans;

/// <summary>Counts of the plan's actions.</summary>
public sealed class PlanSummary
{
    private static readonly (PatchAction Action, string One, string Many)[] s_words =
    [
        (PatchAction.Inline, "inlined", "inlined"),
        (PatchAction.Call, "direct call", "direct calls"),
        (PatchAction.ThunkCall, "call of a thunk", "calls of thunks"),
        (PatchAction.Jump, "direct jump", "direct jumps"),
        (PatchAction.Identity, "identity", "identities"),
        (PatchAction.Nop, "nop", "nops"),
        (PatchAction.Trap, "trap", "traps"),
        (PatchAction.CallBug, "call of BUG", "calls of BUG"),
        (PatchAction.Thunk, "thunk", "thunks"),
        (PatchAction.Record, "record", "records"),
        (PatchAction.Slot, "slot", "slots"),
    ];

    private readonly int[] _actions = new int[Enum.GetValues<PatchAction>().Length];
    private readonly int[] _reasons = new int[Enum.GetValues<PatchReason>().Length];

    internal PlanSummary(PatchPlan plan)
    {
        int[] uses = new int[plan.OutcomeCount];
        for (int i = 0; i < plan.Count; i++)
        {
            uses[plan.OutcomeIndexOf(i)]++;
        }

        for (int i = 0; i < uses.Length; i++)
        {
            PlanOutcome outcome = plan.OutcomeAt(i);
            _actions[(int)outcome.Action] += uses[i];
            _reasons[(int)outcome.Reason] += uses[i];
        }

        Total = plan.Count - Count(PatchAction.Thunk) - Count(PatchAction.Record) - Count(PatchAction.Slot);
    }

    /// <summary>How many sites the plan has; thunks, records and slots are not counted.</summary>
    public int Total { get; }

    /// <summary>How many sites have an action.</summary>
    /// <param name="action">The action.</param>
    /// <returns>The number.</returns>
    public int Count(PatchAction action) => _actions[(int)action];

    /// <summary>How many sites are left alone for a reason.</summary>
    /// <param name="reason">The reason; <see cref="PatchReason.None"/> counts the sites that are not left alone.</param>
    /// <returns>The number.</returns>
    public int Count(PatchReason reason) => _reasons[(int)reason];

    /// <summary>One line, such as <c>1204 inlined, 310 direct calls, 2 left alone (ClobbersTooMuch)</c>.</summary>
    /// <returns>The line.</returns>
    public override string ToString()
    {
        var text = new StringBuilder();
        foreach ((PatchAction action, string one, string many) in s_words)
        {
            int count = Count(action);
            if (count > 0)
            {
                Separate(text).Append(CultureInfo.InvariantCulture, $"{count} {(count == 1 ? one : many)}");
            }
        }

        for (int i = 1; i < _reasons.Length; i++)
        {
            if (_reasons[i] > 0)
            {
                Separate(text).Append(CultureInfo.InvariantCulture, $"{_reasons[i]} left alone ({(PatchReason)i})");
            }
        }

        return text.Length == 0 ? "no sites" : text.ToString();
    }

    private static StringBuilder Separate(StringBuilder text) => text.Append(text.Length == 0 ? "" : ", ");
}
