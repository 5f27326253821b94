using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>
/// A decision as the walk over the sites wants it: finished bytes as one vector and a displacement to add, in a form that needs no
/// branch on what kind of decision it is.
/// </summary>
/// <remarks>A plan has a few hundred of these; they lie side by side and fit the first-level cache.</remarks>
internal struct ReadyDecision
{
    private Vector128<byte> _bytes;
    private ulong _origin;
    private long _distanceMask;
    private int _field;
    private int _keep;
    private int _fieldOffset;
    private int _outcome;

    /// <summary>Whether these fields say all there is to say: no failure, at most 16 bytes and one fix-up.</summary>
    public bool IsPlain { get; private init; }

    public readonly int Outcome => _outcome;

    /// <summary>The site is left as it is.</summary>
    public static ReadyDecision LeaveAlone(int outcome, int budget) =>
        budget > PlanEntry.MaxInPlace ? default : new() { _outcome = outcome, _keep = -1, IsPlain = true };

    /// <summary>The site gets a template's bytes.</summary>
    public static ReadyDecision Write(int outcome, CodeTemplate template)
    {
        if (template.Bytes.Length > PlanEntry.MaxInPlace || template.FixupSpan.Length > 1)
        {
            return default;
        }

        var ready = new ReadyDecision { _outcome = outcome, _bytes = PlanEntry.Pad(template.Bytes), IsPlain = true };
        if (template.FixupSpan.Length == 1)
        {
            CodeFixup fixup = template.FixupSpan[0];
            ready._origin = unchecked(fixup.Target.Value - fixup.InstructionEnd);
            ready._distanceMask = -1;
            ready._fieldOffset = fixup.Offset; // a 4-byte field of a body, so at most 12
        }
        else
        {
            // Without a fix-up the field is the first four bytes, written once more as they are.
            ready._field = ready._bytes.AsInt32().ToScalar();
        }

        return ready;
    }

    /// <summary>The distance to be put into the field; 0 where there is none.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly long DistanceFrom(ulong site) => unchecked((long)(_origin - site)) & _distanceMask;

    /// <summary>Writes the new bytes of a site.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public readonly void WriteTo(ref Vector128<byte> destination, Vector128<byte> old, int displacement)
    {
        destination = (old & Vector128.Create(_keep).AsByte()) | _bytes;
        // At most one of the three is not zero.
        int field = displacement | _field | (old.AsInt32().ToScalar() & _keep);
        Unsafe.WriteUnaligned(ref Unsafe.AddByteOffset(ref Unsafe.As<Vector128<byte>, byte>(ref destination), _fieldOffset), field);
    }
}
