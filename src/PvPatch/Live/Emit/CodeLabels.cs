using Iced.Intel;

namespace PvPatch.Live;

/// <summary>Where an assembler's labels are in a block.</summary>
public sealed class CodeLabels
{
    private readonly VirtualAddress _start;
    private readonly uint[] _offsets;
    private readonly int[]? _moved;

    internal CodeLabels(VirtualAddress start, uint[] offsets, int[]? moved)
    {
        _start = start;
        _offsets = offsets;
        _moved = moved;
    }

    /// <summary>A label's run address.</summary>
    /// <param name="label">A label the assembler has placed.</param>
    /// <returns>The address of the instruction behind it.</returns>
    /// <exception cref="ArgumentException">The label is not placed in this block.</exception>
    public VirtualAddress this[Label label]
    {
        get
        {
            int index = label.InstructionIndex;
            int count = _moved?.Length ?? _offsets.Length;
            if (label.IsEmpty || (uint)index >= (uint)count)
            {
                throw new ArgumentException("the label is not placed in this block", nameof(label));
            }

            return _start + _offsets[_moved is null ? index : _moved[index]];
        }
    }
}
