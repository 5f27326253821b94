using System.Globalization;
using Iced.Intel;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>Run addresses of an assembler's labels in a block.</summary>
public sealed class CodeLabels
{
    private const ulong LowestAddress = 1 << 16; // no code is ever mapped below

    // In place of the instruction behind a label.
    internal const int Nowhere = -1;
    internal const int Twice = -2;

    private readonly VirtualAddress _start;
    private readonly int _count;
    private readonly uint[] _offsets;
    private readonly int[]? _moved;

    /// <summary>Keeps where instructions are.</summary>
    /// <param name="start">Run address of the code.</param>
    /// <param name="count">Number of the assembler's instructions.</param>
    /// <param name="offsets">Offset of each instruction that was encoded.</param>
    /// <param name="moved">
    /// The encoded instruction for each of the assembler's, and behind them for each island; the same where nothing was put between them.
    /// </param>
    internal CodeLabels(VirtualAddress start, int count, uint[] offsets, int[]? moved)
    {
        _start = start;
        _count = count;
        _offsets = offsets;
        _moved = moved;
    }

    /// <summary>A label's run address.</summary>
    /// <param name="label">A label the assembler has placed.</param>
    /// <returns>The address of the instruction behind it.</returns>
    /// <exception cref="ArgumentException">The label is not placed in this block.</exception>
    public VirtualAddress this[Label label] => !label.IsEmpty && (uint)label.InstructionIndex < (uint)_count
        ? _start + OffsetOf(label.InstructionIndex)
        : throw new ArgumentException("the label is not placed in this block", nameof(label));

    /// <summary>Where an instruction of the assembler, or an island behind them, begins.</summary>
    internal int OffsetOf(int instruction) => (int)_offsets[_moved is null ? instruction : _moved[instruction]];

    /// <summary>The index of the instruction behind each label, by Iced's number; <see cref="Twice"/> where it is placed twice.</summary>
    internal static Dictionary<ulong, int> Placed(IReadOnlyList<Instruction> instructions)
    {
        var placed = new Dictionary<ulong, int>();
        for (int i = 0; i < instructions.Count; i++)
        {
            if (instructions[i].IP is ulong label and not 0)
            {
                placed[label] = placed.ContainsKey(label) ? Twice : i;
            }
        }

        return placed;
    }

    /// <summary>
    /// Whether an instruction with a label was made several, for what it names is out of its reach: Iced does not tell where it begins.
    /// </summary>
    internal static bool AnyLost(IReadOnlyList<Instruction> instructions, uint[] offsets)
    {
        for (int i = Array.IndexOf(offsets, uint.MaxValue); i >= 0; i = Array.IndexOf(offsets, uint.MaxValue, i + 1))
        {
            if (instructions[i].IP != 0)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>
    /// Throws where an assembler's code refers to a label that is not placed, or to an address that could be one: Iced keeps both in one
    /// field, numbers its labels from 1, and takes for an address what it finds no label for.
    /// </summary>
    internal static void Check(Assembler assembler)
    {
        // By index: an enumerator of an interface is an object.
        IReadOnlyList<Instruction> instructions = assembler.Instructions;
        HashSet<ulong>? placed = null;
        bool refers = false;
        for (int i = 0; i < instructions.Count; i++)
        {
            Instruction instruction = instructions[i];
            refers |= TryGetTarget(instruction, out _);
            if (instruction.IP != 0)
            {
                (placed ??= []).Add(instruction.IP);
            }
        }

        ulong last = 0;
        for (int i = 0; refers && i < instructions.Count; i++)
        {
            Instruction instruction = instructions[i];
            if (!TryGetTarget(instruction, out ulong target) || placed?.Contains(target) == true)
            {
                continue;
            }

            last = last == 0 ? NumberOf(assembler.CreateLabel()) : last;
            if (target != 0 && target < last)
            {
                throw new PatchException(SiteEmitter.Misuse("a label is used but not placed") with { Found = instruction.ToString() });
            }

            if (target < LowestAddress)
            {
                throw new PatchException(SiteEmitter.Misuse("an address below 64 KiB can't be told from a label") with
                {
                    Address = target,
                    Found = instruction.ToString(),
                    Help = "Nothing is mapped there. To go there all the same, load the address into a register.",
                });
            }
        }
    }

    private static bool TryGetTarget(in Instruction instruction, out ulong target)
    {
        bool branch = BodyBuilder.IsNearBranch(instruction);
        target = branch ? instruction.NearBranchTarget : instruction.IsIPRelativeMemoryOperand ? instruction.IPRelativeMemoryAddress : 0;
        return branch || instruction.IsIPRelativeMemoryOperand;
    }

    /// <summary>A label's number, which Iced shows only in its text: name, an at sign, the number.</summary>
    private static ulong NumberOf(Label label)
    {
        string text = label.ToString();
        return ulong.Parse(text.AsSpan(text.LastIndexOf('@') + 1), NumberStyles.None, CultureInfo.InvariantCulture);
    }
}
