using RiscV.Host;
using RiscV.Isa;

namespace RiscV.Translator;

/// <summary>
/// What is translated at once: the guest code that can be reached from an address by branches whose targets are known, returns of calls
/// included. Loops stay inside, so that going round them leaves no host block.
/// </summary>
internal sealed unsafe class GuestRegion
{
    private const int MaxInstructions = 400;

    private readonly SortedDictionary<ulong, Instruction> _instructions = [];
    private readonly HashSet<ulong> _heads = [];
    private readonly CpuState* _cpu;

    /// <summary>Finds the region of an address, which lies in the code.</summary>
    public GuestRegion(CpuState* cpu, ulong entry)
    {
        _cpu = cpu;
        var pending = new Queue<ulong>([entry]);
        while (pending.TryDequeue(out ulong pc))
        {
            _heads.Add(pc);
            Follow(pc, pending);
        }

        Blocks = [.. Split()];
    }

    /// <summary>Its blocks in order of address: only the last instruction of each may jump, and only the first is jumped to.</summary>
    public IReadOnlyList<GuestBlock> Blocks { get; }

    /// <summary>The words it was made from.</summary>
    public (ulong Pc, uint Word)[] Words => [.. _instructions.Keys.Select(pc => (pc, *(uint*)(_cpu->Window + pc)))];

    private bool IsCode(ulong pc) => pc - _cpu->CodeStart < _cpu->CodeWords * 4 && (pc & 3) == 0;

    private void Follow(ulong pc, Queue<ulong> pending)
    {
        for (; IsCode(pc) && !_instructions.ContainsKey(pc) && _instructions.Count < MaxInstructions; pc += 4)
        {
            Instruction instruction = Decoder.Decode(*(uint*)(_cpu->Window + pc));
            _instructions.Add(pc, instruction);
            if (instruction.IsGoto)
            {
                pending.Enqueue(pc + (ulong)instruction.Imm);
            }

            if (instruction.Op is (>= Op.Beq and <= Op.Bgeu) or Op.Ecall || (instruction.Op is Op.Jal or Op.Jalr && instruction.Rd != 0))
            {
                pending.Enqueue(pc + 4); // comes back there, if nothing stops it
            }

            if (instruction.EndsBlock)
            {
                return;
            }
        }
    }

    private IEnumerable<GuestBlock> Split()
    {
        var block = new List<Instruction>();
        foreach ((ulong pc, Instruction instruction) in _instructions)
        {
            block.Add(instruction);
            ulong next = pc + 4;
            if (instruction.EndsBlock || _heads.Contains(next) || !_instructions.ContainsKey(next))
            {
                yield return new GuestBlock(next - (ulong)block.Count * 4, [.. block]);
                block.Clear();
            }
        }
    }
}

/// <summary>Guest instructions that are executed one after the other, and paid for as a whole.</summary>
/// <param name="Pc">Address of the first.</param>
/// <param name="Instructions">All of them.</param>
internal sealed record GuestBlock(ulong Pc, Instruction[] Instructions)
{
    /// <summary>The address behind it.</summary>
    public ulong End => Pc + (ulong)Instructions.Length * 4;
}
