using Iced.Intel;

namespace PvPatch.Machine;

/// <summary>
/// Walks the ways through a body: whether one of them comes out at its end, and with the stack pointer where it was. A branch can lead
/// over the jump or return that stands last, so the last instruction alone does not tell.
/// </summary>
internal sealed class BodyFlow
{
    private readonly List<Instruction> _instructions;
    private readonly Dictionary<ulong, int> _indexByAddress = [];
    private readonly int?[] _moved; // how far the stack pointer has moved before each instruction; the last is the body's end
    private readonly Stack<int> _toVisit = new();
    private readonly ulong _end;

    private BodyFlow(List<Instruction> instructions, ulong end)
    {
        _instructions = instructions;
        _moved = new int?[instructions.Count + 1];
        _end = end;
        for (int i = 0; i < instructions.Count; i++)
        {
            _indexByAddress.Add(instructions[i].IP, i);
        }

        _indexByAddress[end] = instructions.Count;
    }

    /// <summary>Walks a body.</summary>
    /// <param name="instructions">Its instructions in order.</param>
    /// <param name="start">The address it was decoded at.</param>
    /// <param name="end">The address behind it.</param>
    /// <param name="reachesEnd">Whether control can come out at its end.</param>
    /// <returns>What is wrong, or nothing.</returns>
    public static string? Walk(List<Instruction> instructions, ulong start, ulong end, out bool reachesEnd)
    {
        var flow = new BodyFlow(instructions, end);
        string? wrong = flow.Arrive(0, 0) ?? flow.WalkAll(start);
        int? atEnd = flow._moved[^1];
        reachesEnd = atEnd is not null;
        return wrong ?? (atEnd is not null and not 0 ? $"it leaves the stack pointer moved by {atEnd} bytes" : null);
    }

    private string? WalkAll(ulong start)
    {
        while (_toVisit.TryPop(out int index))
        {
            Instruction instruction = _instructions[index];
            int moved = _moved[index]!.Value + Moves(instruction);
            string? wrong = null;
            if (BodyBuilder.IsNearBranch(instruction) && instruction.FlowControl != FlowControl.Call
                && instruction.NearBranchTarget is ulong target && target >= start && target <= _end)
            {
                wrong = _indexByAddress.TryGetValue(target, out int to)
                    ? Arrive(to, moved)
                    : $"a branch at +{instruction.IP - start} leads into the middle of an instruction";
            }

            wrong ??= GoesOn(instruction) ? Arrive(index + 1, moved) : null;
            if (wrong is not null)
            {
                return wrong;
            }
        }

        return null;
    }

    private string? Arrive(int index, int moved)
    {
        if (_moved[index] is int before)
        {
            return before == moved ? null : "the stack pointer has moved differently on two ways through it";
        }

        _moved[index] = moved;
        if (index < _instructions.Count)
        {
            _toVisit.Push(index);
        }

        return null;
    }

    /// <summary>What a call pushes its callee pops; an instruction that sets the stack pointer anew is noted as destroying it, not here.</summary>
    private static int Moves(in Instruction instruction) =>
        instruction.Mnemonic == Mnemonic.Call ? 0 : instruction.StackPointerIncrement;

    private static bool GoesOn(in Instruction instruction) =>
        instruction.FlowControl is not (FlowControl.Return or FlowControl.UnconditionalBranch or FlowControl.IndirectBranch);
}
