using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using PvPatch.Machine;

namespace PvPatch.Plans;

/// <summary>
/// One site of a plan in 16 bytes. Its old bytes are an <see cref="OldForm"/> with <see cref="Field"/> in the form's hole, its new bytes a
/// <see cref="NewForm"/> with the distance from <see cref="Address"/> in the form's field. Both tables are shared by all sites.
/// </summary>
/// <remarks>
/// What no form describes (more than 16 bytes, several fix-ups, bytes that are no indirect call) is in the plan's overflow: outcome, old
/// bytes, new bytes, beginning at <see cref="Field"/>.
/// </remarks>
[StructLayout(LayoutKind.Sequential, Size = SizeInBytes)]
internal readonly struct PlanEntry
{
    public const int SizeInBytes = 16;

    /// <summary>The first number that is no old form but says: in the overflow, with so many bytes more than this number.</summary>
    public const int FirstOverflow = 0xff00;

    public readonly ulong Address;
    public readonly int Field;
    private readonly ushort _old;
    private readonly ushort _new;

    private PlanEntry(ulong address, int field, int old, int @new)
    {
        Address = address;
        Field = field;
        _old = (ushort)old;
        _new = (ushort)@new;
    }

    public int Old => _old;

    public int New => _new;

    public bool IsOverflow => _old >= FirstOverflow;

    public int OverflowLength => _old - FirstOverflow;

    public static PlanEntry InOverflow(ulong address, int length, int offset) => new(address, offset, FirstOverflow + length, 0);

    /// <summary>Stores an entry.</summary>
    /// <param name="entry">Where to.</param>
    /// <param name="address">The site's run address.</param>
    /// <param name="field">What stands in the hole of its old form.</param>
    /// <param name="forms">The number of its old form, and 16 bits above it that of its new form.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(ref PlanEntry entry, ulong address, int field, int forms)
    {
        Unsafe.AsRef(in entry.Address) = address;
        Unsafe.AsRef(in entry.Field) = field;
        Unsafe.As<ushort, int>(ref Unsafe.AsRef(in entry._old)) = forms; // both numbers in one store
    }
}

/// <summary>
/// What the old bytes of many sites have in common, everything but the displacement of their call; and how such a site is recognised.
/// </summary>
[StructLayout(LayoutKind.Sequential, Size = 128)]
internal struct OldForm
{
    /// <summary>Ones over the site but for the hole.</summary>
    public Vector128<byte> Fixed;

    /// <summary>The bytes; zero in the hole and behind the site.</summary>
    public Vector128<byte> Bytes;

    /// <summary>Takes the field out of a site's bytes.</summary>
    public Vector128<byte> Extract;

    /// <summary>The form's number.</summary>
    public int Number;

    public int Length;

    /// <summary>
    /// Where the instruction ends that the field is a distance from; 0 where the field is an address, -1 where it is neither.
    /// </summary>
    public int FieldBase;

    /// <summary>Puts the bytes of a field into the hole: the number of the field's byte, or 0x80 for none.</summary>
    public Vector128<byte> Insert;

    /// <summary>Ones over the site, the hole included.</summary>
    public Vector128<byte> Whole;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly bool Matches(Vector128<byte> site) => (site & Fixed) == Bytes;

    /// <summary>The displacement of a site's call, as it stands there.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly int FieldOf(Vector128<byte> site) => Vector128.ShuffleNative(site, Extract).AsInt32().ToScalar();

    /// <summary>Old bytes of a site.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly Vector128<byte> With(int field) =>
        Bytes | Vector128.ShuffleNative(Vector128.CreateScalarUnsafe(field).AsByte(), Insert);
}

/// <summary>What the new bytes of many sites have in common, and what is said of those sites.</summary>
[StructLayout(LayoutKind.Sequential, Size = 64)]
internal struct NewForm
{
    /// <summary>The bytes; zero in the field of the fix-up and behind the site, and where the site keeps its bytes.</summary>
    public Vector128<byte> Bytes;

    /// <summary>Puts the distance into the fix-up's field: the number of the distance's byte, or 0x80 for none.</summary>
    public Vector128<byte> Insert;

    /// <summary>Ones over the site; nothing where the site keeps its bytes.</summary>
    public Vector128<byte> Written;

    /// <summary>Target less the end of its instruction: less a site's address, the displacement.</summary>
    public ulong Origin;

    public int Outcome;

    /// <summary>1, or 0 where the site keeps its bytes.</summary>
    public int Changes;

    /// <summary>Whether there is a fix-up, whose distance has to be in reach.</summary>
    public readonly bool HasDistance => Insert != SiteBytes.Nothing;

    /// <summary>New bytes of a site that does not keep its bytes; nothing where it does.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly Vector128<byte> At(ulong address) =>
        Bytes | Vector128.ShuffleNative(Vector128.CreateScalarUnsafe(unchecked((int)(Origin - address))).AsByte(), Insert);

    /// <summary>New bytes of a site with these old bytes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly Vector128<byte> At(ulong address, Vector128<byte> old) => Vector128.ConditionalSelect(Written, At(address), old);
}

/// <summary>
/// The forms and outcomes that the entries of plans refer to. Only ever appended to, and what is there never changes: a plan keeps the
/// arrays as they were when it was built, while the next plan of the same planner appends behind the part this one knows.
/// </summary>
internal sealed class PlanForms
{
    private const int MaxNewForms = ushort.MaxValue;

    private readonly Dictionary<PlanOutcome, int> _outcomeIndex = [];
    private readonly Dictionary<int, int> _keptForms = [];
    private int _newCount;

    public OldForm[] Olds { get; private set; } = [];

    public NewForm[] News { get; private set; } = [];

    public PlanOutcome[] Outcomes { get; private set; } = [];

    public int OldCount { get; private set; }

    public int OutcomeCount { get; private set; }

    /// <summary>Adds an old form; its number, or -1 where there are as many as an entry can name.</summary>
    public int Add(in OldForm form)
    {
        if (OldCount == PlanEntry.FirstOverflow)
        {
            return -1;
        }

        Olds = Appended(Olds, OldCount, form);
        Olds[OldCount].Number = OldCount;
        return OldCount++;
    }

    /// <summary>The number under which entries refer to an outcome.</summary>
    public int OutcomeIndex(PlanOutcome outcome)
    {
        ArgumentNullException.ThrowIfNull(outcome);
        if (!_outcomeIndex.TryGetValue(outcome, out int index))
        {
            index = Add(outcome);
            _outcomeIndex.Add(outcome, index);
        }

        return index;
    }

    /// <summary>Adds an outcome, for a caller that knows by a cheaper way than <see cref="OutcomeIndex"/> whether it is new.</summary>
    public int Add(PlanOutcome outcome)
    {
        Outcomes = Appended(Outcomes, OutcomeCount, outcome);
        return OutcomeCount++;
    }

    /// <summary>The form of sites that keep their bytes; -1 where there are as many forms as an entry can name.</summary>
    public int Kept(int outcome)
    {
        if (!_keptForms.TryGetValue(outcome, out int form))
        {
            form = Add(new NewForm { Insert = SiteBytes.Nothing, Outcome = outcome });
            _keptForms.Add(outcome, form);
        }

        return form;
    }

    /// <summary>The form of sites that get a template's bytes; -1 where that takes more than a form can say.</summary>
    public int Written(int outcome, CodeTemplate template)
    {
        if (template.Bytes.Length > SiteBytes.MaxLength || template.FixupSpan.Length > 1)
        {
            return -1;
        }

        var form = new NewForm
        {
            Bytes = SiteBytes.Pad(template.Bytes),
            Insert = SiteBytes.Nothing,
            Written = SiteBytes.Masks[template.Bytes.Length],
            Outcome = outcome,
            Changes = 1,
        };
        if (template.FixupSpan.Length == 1)
        {
            CodeFixup fixup = template.FixupSpan[0];
            form.Insert = SiteBytes.Insert(fixup.Offset, sizeof(int));
            form.Origin = unchecked(fixup.Target.Value - fixup.InstructionEnd);
        }

        return Add(form);
    }

    private int Add(in NewForm form)
    {
        if (_newCount == MaxNewForms)
        {
            return -1;
        }

        News = Appended(News, _newCount, form);
        return _newCount++;
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
