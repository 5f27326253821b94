using Iced.Intel;

namespace PvPatch.Machine;

/// <summary>Reads a body's instructions back: what they destroy, what they do to the stack, which fields depend on the place.</summary>
internal sealed class BodyReader
{
    // The interrupt flag is not in it: changing that is what cli and sti are for, and no compiler keeps it in a register.
    private const RflagsBits Kept =
        RflagsBits.OF | RflagsBits.SF | RflagsBits.ZF | RflagsBits.AF | RflagsBits.CF | RflagsBits.PF | RflagsBits.DF | RflagsBits.AC;

    private const RflagsBits X87 = RflagsBits.C0 | RflagsBits.C1 | RflagsBits.C2 | RflagsBits.C3;

    private readonly RegisterSet _destroyedByCalls;
    private readonly int _bitness;
    private readonly List<CodeFixup> _fixups = [];
    private RegisterSet _destroys;
    private RegisterSet _reads;
    private bool _usesStack;

    public BodyReader(RegisterSet destroyedByCalls, int bitness)
    {
        _destroyedByCalls = destroyedByCalls;
        _bitness = bitness;
    }

    /// <summary>Reads a body made for an address; the fields of its fix-ups are set to zero.</summary>
    public AssembledBody? Read(byte[] code, VirtualAddress origin, out string? wrong)
    {
        ulong end = unchecked(origin.Value + (ulong)code.Length);
        if (end < origin.Value || (_bitness == 32 && end > uint.MaxValue))
        {
            wrong = $"the address {origin} it was made for is too near the end of the address space";
            return null;
        }

        var decoder = Decoder.Create(_bitness, new ByteArrayCodeReader(code), origin.Value);
        var infos = new InstructionInfoFactory();
        var instructions = new List<Instruction>();
        while (decoder.IP < end)
        {
            decoder.Decode(out Instruction instruction);
            if (instruction.IsInvalid)
            {
                wrong = $"the bytes at +{instruction.IP - origin.Value} are no instruction";
                return null;
            }

            instructions.Add(instruction);
            wrong = NoteReferences(code, decoder, instruction, origin, end);
            if (wrong is not null)
            {
                return null;
            }

            NoteEffects(instruction, infos.GetInfo(instruction));
        }

        wrong = BodyFlow.Walk(instructions, origin.Value, end, out bool reachesEnd);
        return wrong is not null ? null : new AssembledBody(code, [.. _fixups], _bitness)
        {
            Destroys = reachesEnd ? _destroys : RegisterSet.None,
            Reads = _reads,
            UsesStack = _usesStack,
            HasIndirectBranch = instructions.Exists(static i => i.IsCallNearIndirect || i.IsJmpNearIndirect),
            InstructionCount = instructions.Count,
            EndsControlFlow = !reachesEnd,
        };
    }

    /// <summary>What each instruction of a body does by itself; its address is its offset.</summary>
    public static IEnumerable<(Instruction Instruction, RegisterSet Destroys, bool UsesStack)> EffectsOfEach(
        AssembledBody body, RegisterSet destroyedByCalls)
    {
        var decoder = Decoder.Create(body.Bitness, body.Bytes.ToArray());
        var infos = new InstructionInfoFactory();
        while (decoder.IP < (ulong)body.Bytes.Length)
        {
            var reader = new BodyReader(destroyedByCalls, body.Bitness);
            Instruction instruction = decoder.Decode();
            reader.NoteEffects(instruction, infos.GetInfo(instruction));
            yield return (instruction, reader._destroys, reader._usesStack);
        }
    }

    private string? NoteReferences(byte[] code, Decoder decoder, in Instruction instruction, VirtualAddress origin, ulong end)
    {
        if (BodyBuilder.RelativeTarget(instruction) is not ulong target || (target >= origin.Value && target <= end))
        {
            return null; // inside the body: moves along with it
        }

        ConstantOffsets offsets = decoder.GetConstantOffsets(instruction);
        int start = (int)(instruction.IP - origin.Value);
        (int at, int size) = BodyBuilder.IsNearBranch(instruction)
            ? (start + offsets.ImmediateOffset, offsets.ImmediateSize)
            : (start + offsets.DisplacementOffset, offsets.DisplacementSize);
        if (size != 4)
        {
            return $"the {instruction.Mnemonic.ToString().ToLowerInvariant()} at +{start} leaves the body with a field of {size} "
                + $"bytes; only 4-byte ones can be moved";
        }

        _reads |= BodyBuilder.IsNearBranch(instruction) ? RegisterSet.All : RegisterSet.None; // whoever comes next may
        code.AsSpan(at, 4).Clear();
        _fixups.Add(new CodeFixup((byte)at, (byte)(start + instruction.Length), target));
        return null;
    }

    private void NoteEffects(in Instruction instruction, in InstructionInfo info)
    {
        foreach (UsedRegister used in info.GetUsedRegisters())
        {
            if (used.Access is OpAccess.Write or OpAccess.CondWrite or OpAccess.ReadWrite or OpAccess.ReadCondWrite)
            {
                NoteWrite(used, instruction.IsStackInstruction);
            }

            if (used.Access is not (OpAccess.Write or OpAccess.None) && used.Register.IsGPR())
            {
                _reads |= RegisterSet.General(used.Register.GetFullRegister().GetNumber());
            }
        }

        foreach (UsedMemory memory in info.GetUsedMemory())
        {
            _usesStack |= IsStackPointer(memory.Base) || IsStackPointer(memory.Index);
        }

        RflagsBits flags = instruction.RflagsModified;
        _destroys |= (flags & Kept) != 0 ? RegisterSet.Flags : RegisterSet.None;
        _destroys |= (flags & X87) != 0 || ChangesVectorStateUnseen(instruction) ? RegisterSet.Vector : RegisterSet.None;
        _destroys |= IsCall(instruction) ? _destroyedByCalls : RegisterSet.None;
        bool staysHere = instruction.FlowControl == FlowControl.Next
            || (BodyBuilder.IsNearBranch(instruction) && instruction.FlowControl != FlowControl.Call); // see NoteReferences
        _reads |= staysHere ? RegisterSet.None : RegisterSet.All;
        _usesStack |= instruction.IsStackInstruction;
    }

    /// <summary>
    /// Whether other code runs before the next instruction and may do as a callee does: system and hypercalls give their results in
    /// registers that are not in the instruction's own description. Not the traps of a debugger (int3, int1), which come back unchanged.
    /// </summary>
    private static bool IsCall(in Instruction instruction) =>
        instruction.FlowControl is FlowControl.Call or FlowControl.IndirectCall
        || (instruction.FlowControl == FlowControl.Interrupt && instruction.Mnemonic is Mnemonic.Int or Mnemonic.Into);

    /// <summary>Instructions that change vector or x87 state of which the decoder names no register: too many, or control words.</summary>
    private static bool ChangesVectorStateUnseen(in Instruction instruction) =>
        instruction.IsSaveRestoreInstruction
        || instruction.Mnemonic is Mnemonic.Emms or Mnemonic.Femms or Mnemonic.Ldmxcsr or Mnemonic.Vldmxcsr;

    private void NoteWrite(UsedRegister used, bool stackInstruction)
    {
        Register register = used.Register;
        if (IsStackPointer(register))
        {
            // Push and pop read and write it, and BodyFlow counts by how much. Leave and pop rsp only write it: nobody can count that.
            bool counted = stackInstruction && used.Access is OpAccess.ReadWrite or OpAccess.ReadCondWrite;
            _destroys |= counted ? RegisterSet.None : RegisterSet.Rsp;
        }
        else if (register.IsGPR())
        {
            _destroys |= RegisterSet.General(register.GetFullRegister().GetNumber());
        }
        else if (register.IsVectorRegister() || register.IsST() || register.IsMM() || register.IsK() || register.IsTMM())
        {
            _destroys |= RegisterSet.Vector;
        }
    }

    private static bool IsStackPointer(Register register) => register.GetFullRegister() == Register.RSP;
}

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
        flow.Arrive(0, 0);
        string? wrong = flow.WalkAll(start);
        reachesEnd = flow._moved[^1] is not null;
        return wrong;
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
        if (index == _instructions.Count)
        {
            return moved == 0 ? null : $"it leaves the stack pointer moved by {moved} bytes";
        }

        _toVisit.Push(index);
        return null;
    }

    /// <summary>
    /// What a call pushes its callee pops; an instruction that sets the stack pointer anew is noted as destroying it, not here.
    /// </summary>
    private static int Moves(in Instruction instruction) =>
        instruction.Mnemonic == Mnemonic.Call ? 0 : instruction.StackPointerIncrement;

    private static bool GoesOn(in Instruction instruction) =>
        instruction.FlowControl is not (FlowControl.Return or FlowControl.UnconditionalBranch or FlowControl.IndirectBranch);
}
