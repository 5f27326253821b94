using PvPatch.Machine;

namespace PvPatch.Plans;

/// <summary>
/// The forms and outcomes that the entries of plans refer to. Only ever appended to, and what is there never changes: a plan keeps the arrays as they
/// were when it was built, while the next plan of the same planner appends behind the part this one knows.
/// </summary>
internal sealed class PlanForms
{
    private const int MaxNewForms = ushort.MaxValue;

    private readonly Dictionary<PlanOutcome, int> _outcomeIndex = [];
    private readonly Dictionary<int, int> _keptForms = [];

    public OldForm[] Olds { get; private set; } = [];

    public NewForm[] News { get; private set; } = [];

    public PlanOutcome[] Outcomes { get; private set; } = [];

    public int OldCount { get; private set; }

    public int NewCount { get; private set; }

    public int OutcomeCount { get; private set; }

    /// <summary>Adds an old form; its number, or -1 where there are as many as an entry can name.</summary>
    public int Add(in OldForm form)
    {
        if (OldCount == PlanEntry.FirstOverflow)
        {
            return -1;
        }

        Olds = Appended(Olds, OldCount, form);
        return OldCount++;
    }

    /// <summary>The number under which entries refer to an outcome.</summary>
    public int OutcomeIndex(PlanOutcome outcome)
    {
        ArgumentNullException.ThrowIfNull(outcome);
        if (!_outcomeIndex.TryGetValue(outcome, out int index))
        {
            Outcomes = Appended(Outcomes, OutcomeCount, outcome);
            index = OutcomeCount++;
            _outcomeIndex.Add(outcome, index);
        }

        return index;
    }

    /// <summary>The form of sites that keep their bytes; -1 where there are as many forms as an entry can name.</summary>
    public int Kept(int outcome)
    {
        if (!_keptForms.TryGetValue(outcome, out int form))
        {
            form = Add(new NewForm { Insert = SiteVector.Nothing, Outcome = outcome });
            _keptForms.Add(outcome, form);
        }

        return form;
    }

    /// <summary>The form of sites that get a template's bytes; -1 where that takes more than a form can say.</summary>
    public int Written(int outcome, CodeTemplate template)
    {
        if (template.Bytes.Length > SiteVector.MaxLength || template.FixupSpan.Length > 1)
        {
            return -1;
        }

        var form = new NewForm
        {
            Bytes = SiteVector.Pad(template.Bytes),
            Insert = SiteVector.Nothing,
            Written = SiteVector.Masks[template.Bytes.Length],
            Outcome = outcome,
            Changes = 1,
        };
        if (template.FixupSpan.Length == 1)
        {
            CodeFixup fixup = template.FixupSpan[0];
            form.Insert = SiteVector.Insert(fixup.Offset, sizeof(int));
            form.Origin = unchecked(fixup.Target.Value - fixup.InstructionEnd);
        }

        return Add(form);
    }

    private int Add(in NewForm form)
    {
        if (NewCount == MaxNewForms)
        {
            return -1;
        }

        News = Appended(News, NewCount, form);
        return NewCount++;
    }

    private static T[] Appended<T>(T[] array, int count, in T item)
    {
        if (count == array.Length)
        {
            Array.Resize(ref array, Math.Max(8, count * 2)); // a new array: plans keep the old one
        }

        array[count] = item;
        return array;
    }
}
