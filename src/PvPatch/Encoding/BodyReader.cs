using Iced.Intel;
using PvPatch.Sites;

namespace PvPatch.Encoding;

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
    private bool _usesStack;
    private int _stackMoved;
    private int _count;

    public BodyReader(RegisterSet destroyedByCalls, int bitness)
    {
        _destroyedByCalls = destroyedByCalls;
        _bitness = bitness;
    }

    /// <summary>Reads a body made for an address; the fields of its fix-ups are set to zero.</summary>
    public AssembledBody? Read(byte[] code, VirtualAddress origin, out string? wrong)
    {
        var decoder = Decoder.Create(_bitness, new ByteArrayCodeReader(code), origin.Value);
        var infos = new InstructionInfoFactory();
        ulong end = origin.Value + (ulong)code.Length;
        bool ends = false;
        while (decoder.IP < end)
        {
            decoder.Decode(out Instruction instruction);
            if (instruction.IsInvalid)
            {
                wrong = $"the bytes at +{instruction.IP - origin.Value} are no instruction";
                return null;
            }

            _count++;
            wrong = NoteReferences(code, decoder, instruction, origin, end) ?? NoteEffects(instruction, infos.GetInfo(instruction));
            if (wrong is not null)
            {
                return null;
            }

            ends = instruction.FlowControl is FlowControl.Return or FlowControl.UnconditionalBranch or FlowControl.IndirectBranch;
        }

        if (_stackMoved != 0 && !ends)
        {
            wrong = $"it leaves the stack pointer moved by {_stackMoved} bytes";
            return null;
        }

        wrong = null;
        return new AssembledBody(code, [.. _fixups], _bitness)
        {
            Destroys = ends ? RegisterSet.None : _destroys,
            UsesStack = _usesStack,
            InstructionCount = _count,
            EndsControlFlow = ends,
        };
    }

    private string? NoteReferences(byte[] code, Decoder decoder, in Instruction instruction, VirtualAddress origin, ulong end)
    {
        bool branch = BodyBuilder.IsNearBranch(instruction);
        if (!branch && !instruction.IsIPRelativeMemoryOperand)
        {
            return null;
        }

        ulong target = branch ? instruction.NearBranchTarget : instruction.IPRelativeMemoryAddress;
        if (target >= origin.Value && target <= end)
        {
            return null; // inside the body: moves along with it
        }

        ConstantOffsets offsets = decoder.GetConstantOffsets(instruction);
        int start = (int)(instruction.IP - origin.Value);
        (int at, int size) = branch
            ? (start + offsets.ImmediateOffset, offsets.ImmediateSize)
            : (start + offsets.DisplacementOffset, offsets.DisplacementSize);
        if (size != 4)
        {
            return $"the {instruction.Mnemonic.ToString().ToLowerInvariant()} at +{start} leaves the body with a field of {size} bytes; only 4-byte ones can be moved";
        }

        code.AsSpan(at, 4).Clear();
        _fixups.Add(new CodeFixup((byte)at, (byte)(start + instruction.Length), target));
        return null;
    }

    private string? NoteEffects(in Instruction instruction, in InstructionInfo info)
    {
        bool call = instruction.Mnemonic == Mnemonic.Call;
        foreach (UsedRegister used in info.GetUsedRegisters())
        {
            if (used.Access is OpAccess.Write or OpAccess.CondWrite or OpAccess.ReadWrite or OpAccess.ReadCondWrite)
            {
                NoteWrite(used.Register);
            }
        }

        foreach (UsedMemory memory in info.GetUsedMemory())
        {
            _usesStack |= IsStackPointer(memory.Base) || IsStackPointer(memory.Index);
        }

        RflagsBits flags = instruction.RflagsModified;
        _destroys |= (flags & Kept) != 0 ? RegisterSet.Flags : RegisterSet.None;
        _destroys |= (flags & X87) != 0 ? RegisterSet.Vector : RegisterSet.None;
        _usesStack |= instruction.IsStackInstruction;
        if (call)
        {
            _destroys |= _destroyedByCalls; // and the callee pops what the call pushed
        }
        else if (instruction.IsStackInstruction)
        {
            _stackMoved += instruction.StackPointerIncrement;
        }
        else if (WritesStackPointer(info))
        {
            _destroys |= RegisterSet.Rsp;
        }

        return null;
    }

    private void NoteWrite(Register register)
    {
        if (register.IsGPR())
        {
            RegisterSet one = RegisterSet.General(register.GetFullRegister().GetNumber());
            _destroys |= one.Except(RegisterSet.Rsp);
        }
        else if (register.IsVectorRegister() || register.IsST() || register.IsMM() || register.IsK() || register.IsTMM())
        {
            _destroys |= RegisterSet.Vector;
        }
    }

    private static bool WritesStackPointer(in InstructionInfo info)
    {
        foreach (UsedRegister used in info.GetUsedRegisters())
        {
            if (IsStackPointer(used.Register) && used.Access is (OpAccess.Write or OpAccess.CondWrite or OpAccess.ReadWrite or OpAccess.ReadCondWrite))
            {
                return true;
            }
        }

        return false;
    }

    private static bool IsStackPointer(Register register) => register.GetFullRegister() == Register.RSP;
}
