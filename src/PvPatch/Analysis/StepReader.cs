using Iced.Intel;
using PvPatch.Machine;

namespace PvPatch.Analysis;

/// <summary>Makes a step of one instruction.</summary>
internal sealed class StepReader(int bitness)
{
    private const RflagsBits Ignored = RflagsBits.IF | RflagsBits.UIF;

    private readonly InstructionInfoFactory _infos = new();
    private readonly int _word = bitness / 8;

    public CodeStep Read(in Instruction instruction)
    {
        var step = new CodeStep
        {
            Address = instruction.IP,
            NextAddress = instruction.NextIP,
            Next = -1,
            Register = CodeStep.NoRegister,
            Base = CodeStep.NoRegister,
        };
        if (instruction.IsInvalid)
        {
            step.Flow = StepFlow.Invalid;
            return step;
        }

        NoteUses(instruction, ref step);
        NoteFlow(instruction, ref step);
        if (step.Flow is StepFlow.Next && !NoteValue(instruction, ref step))
        {
            NoteResult(instruction, ref step);
        }

        return step;
    }

    /// <summary>What the instruction's description says it reads and writes.</summary>
    private void NoteUses(in Instruction instruction, ref CodeStep step)
    {
        InstructionInfo info = _infos.GetInfo(instruction);
        foreach (UsedRegister used in info.GetUsedRegisters())
        {
            ulong parts = RegisterParts.Of(used.Register);
            if (used.Access is OpAccess.Read or OpAccess.CondRead or OpAccess.ReadWrite or OpAccess.ReadCondWrite)
            {
                step.Use |= parts;
            }

            if (used.Access is OpAccess.Write or OpAccess.ReadWrite)
            {
                step.Kill |= parts & ~RegisterParts.Vector; // one of many registers written leaves the others
            }

            if (used.Access is OpAccess.Write or OpAccess.ReadWrite or OpAccess.CondWrite or OpAccess.ReadCondWrite)
            {
                step.Writes |= RegisterParts.ToRegisters(parts).Bits;
            }
        }

        bool repeats = instruction.HasRepPrefix || instruction.HasRepnePrefix;
        ulong flags = RegisterParts.Of(instruction.RflagsModified & ~Ignored);
        step.Use |= RegisterParts.Of(instruction.RflagsRead & ~Ignored);
        step.Kill |= repeats || IsShiftByRegister(instruction) ? 0 : flags & ~RegisterParts.Vector;
        step.Writes |= RegisterParts.ToRegisters(flags).Bits;
        if (instruction.IsSaveRestoreInstruction || instruction.Mnemonic is Mnemonic.Emms or Mnemonic.Femms or Mnemonic.Ldmxcsr or Mnemonic.Vldmxcsr)
        {
            step.Writes |= RegisterSet.Vector.Bits;
            step.Use |= RegisterParts.Vector;
        }

        foreach (UsedMemory memory in info.GetUsedMemory())
        {
            if (memory.Access is OpAccess.Write or OpAccess.ReadWrite or OpAccess.CondWrite or OpAccess.ReadCondWrite)
            {
                NoteStore(instruction, memory, repeats, ref step);
            }
        }
    }

    /// <summary>A store to an address that may be on the stack. Pushes are followed on their own.</summary>
    private void NoteStore(in Instruction instruction, in UsedMemory memory, bool repeats, ref CodeStep step)
    {
        if (instruction.IsStackInstruction && memory.Base.GetFullRegister() == Register.RSP && instruction.MemoryBase.GetFullRegister() != Register.RSP)
        {
            return;
        }

        step.Op = StepOp.Store;
        step.Base = memory.Segment is Register.FS or Register.GS ? CodeStep.NoRegister : NumberOf(memory.Base);
        step.HasIndex = memory.Index != Register.None || (step.Base >= 0 && memory.Base.GetSize() != _word);
        step.Operand = Displacement(memory.Displacement);
        step.Size = (byte)(repeats ? 0 : Math.Clamp(memory.MemorySize.GetSize(), 0, 255));
    }

    private static void NoteFlow(in Instruction instruction, ref CodeStep step)
    {
        switch (instruction.FlowControl)
        {
            case FlowControl.UnconditionalBranch:
                step.Flow = StepFlow.Jump;
                break;
            case FlowControl.ConditionalBranch or FlowControl.XbeginXabortXend when BodyBuilder.IsNearBranch(instruction):
                step.Flow = StepFlow.Branch;
                step.Writes |= instruction.FlowControl == FlowControl.XbeginXabortXend ? RegisterSet.Rax.Bits : 0;
                break;
            case FlowControl.Call when BodyBuilder.IsNearBranch(instruction):
                step.Flow = StepFlow.Call;
                break;
            case FlowControl.IndirectCall when instruction.IsCallNearIndirect:
                step.Flow = StepFlow.IndirectCall;
                break;
            case FlowControl.Call or FlowControl.IndirectCall:
                step.Flow = StepFlow.Outside;
                break;
            case FlowControl.IndirectBranch:
                step.Flow = StepFlow.IndirectJump;
                break;
            case FlowControl.Return:
                step.Flow = instruction.Mnemonic == Mnemonic.Ret ? StepFlow.Return : StepFlow.InterruptReturn;
                step.Operand = instruction.Mnemonic == Mnemonic.Ret && instruction.OpCount > 0 ? instruction.Immediate16 : 0;
                break;
            case FlowControl.Exception:
                step.Flow = StepFlow.Trap;
                break;
            case FlowControl.Interrupt:
                step.Flow = instruction.Mnemonic is Mnemonic.Int or Mnemonic.Into ? StepFlow.Outside : StepFlow.Next;
                break;
            default:
                // What these run changes registers that no description of them names.
                step.Flow = instruction.Mnemonic is Mnemonic.Vmcall or Mnemonic.Vmmcall or Mnemonic.Tdcall or Mnemonic.Seamcall or Mnemonic.Syscall or Mnemonic.Sysenter
                    or Mnemonic.Vmlaunch or Mnemonic.Vmresume or Mnemonic.Vmrun or Mnemonic.Enclu or Mnemonic.Encls or Mnemonic.Getsec or Mnemonic.Vmgexit
                    ? StepFlow.Outside
                    : StepFlow.Next;
                break;
        }

        if (step.Flow is StepFlow.Jump or StepFlow.Branch or StepFlow.Call)
        {
            step.Operand = unchecked((long)instruction.NearBranchTarget);
            step.Flow = BodyBuilder.IsNearBranch(instruction) ? step.Flow : StepFlow.IndirectJump;
        }

        if (step.Flow is StepFlow.IndirectCall or StepFlow.IndirectJump && instruction.Op0Kind == OpKind.Register)
        {
            step.Register = NumberOf(instruction.Op0Register);
        }
    }

    /// <summary>Instructions whose results are followed as values: moves, constants, addresses, the stack.</summary>
    /// <returns>Whether its reads and writes are all said.</returns>
    private bool NoteValue(in Instruction instruction, ref CodeStep step)
    {
        bool registerTo = instruction.OpCount > 0 && instruction.Op0Kind == OpKind.Register && IsWhole(instruction.Op0Register);
        sbyte first = registerTo ? NumberOf(instruction.Op0Register) : CodeStep.NoRegister;
        switch (instruction.Mnemonic)
        {
            case Mnemonic.Push:
                NotePush(instruction, ref step);
                return true;
            case Mnemonic.Pop when instruction.StackPointerIncrement == _word && (registerTo || instruction.Op0Kind == OpKind.Memory):
                // The memory operand of a pop is counted from the stack pointer after it: what it hits is not followed then.
                step.HasIndex |= step.Op == StepOp.Store;
                step.Op = StepOp.Pop;
                step.Register = first;
                return true;
            case Mnemonic.Pushfq or Mnemonic.Pushfd when instruction.StackPointerIncrement == -_word:
                step.Op = StepOp.Push;
                step.Register = CodeStep.FlagsRegister;
                return true;
            case Mnemonic.Popfq or Mnemonic.Popfd when instruction.StackPointerIncrement == _word:
                step.Op = StepOp.Pop;
                step.Register = CodeStep.FlagsRegister;
                return true;
            case Mnemonic.Leave when instruction.Code == (bitness == 64 ? Code.Leaveq : Code.Leaved):
                step.Op = StepOp.Leave;
                return true;
            case Mnemonic.Mov when registerTo && instruction.Op1Kind == OpKind.Memory && IsFollowed(instruction):
                step.Op = StepOp.Load;
                step.Register = first;
                NoteAddress(instruction, ref step);
                return true;
            case Mnemonic.Mov when step.Op == StepOp.Store && instruction.Op1Kind == OpKind.Register && IsWhole(instruction.Op1Register):
                step.Register = NumberOf(instruction.Op1Register);
                return true;
            case Mnemonic.Lea when registerTo && instruction.MemoryIndex == Register.None && (instruction.MemoryBase == Register.None || instruction.MemoryBase.GetSize() == _word):
                step.Op = instruction.MemoryBase is Register.None || instruction.IsIPRelativeMemoryOperand ? StepOp.Constant : StepOp.Lea;
                step.Register = first;
                NoteAddress(instruction, ref step);
                return false;
            case Mnemonic.Mov when registerTo && instruction.Op1Kind == OpKind.Register:
                step.Op = StepOp.Move;
                step.Register = first;
                step.Base = NumberOf(instruction.Op1Register);
                return false;
            case Mnemonic.Xchg when registerTo && instruction.Op1Kind == OpKind.Register:
                step.Op = StepOp.Exchange;
                step.Register = first;
                step.Base = NumberOf(instruction.Op1Register);
                return true;
            case Mnemonic.Mov when instruction.Op0Kind == OpKind.Register && instruction.Op0Register.GetSize() >= 4 && instruction.Op0Register.IsGPR() && IsImmediate(instruction):
                step.Op = StepOp.Constant;
                step.Register = NumberOf(instruction.Op0Register);
                step.Operand = instruction.Op0Register.GetSize() == 4 ? (uint)instruction.GetImmediate(1) : unchecked((long)instruction.GetImmediate(1));
                return true;
            case Mnemonic.Add or Mnemonic.Sub when registerTo && IsImmediate(instruction):
                step.Op = StepOp.Lea;
                step.Register = first;
                step.Base = first;
                step.Operand = unchecked((long)instruction.GetImmediate(1)) * (instruction.Mnemonic == Mnemonic.Add ? 1 : -1);
                return false;
            case Mnemonic.And when registerTo && first == 4 && IsImmediate(instruction):
                step.Op = StepOp.Align;
                step.Register = first;
                return true;
            default:
                return false;
        }
    }

    private void NotePush(in Instruction instruction, ref CodeStep step)
    {
        step.Op = StepOp.Push;
        if (instruction.StackPointerIncrement != -_word)
        {
            step.Op = StepOp.Other; // a push of 16 bits: its write of the stack pointer stands among the others
        }
        else if (instruction.Op0Kind == OpKind.Register && IsWhole(instruction.Op0Register))
        {
            step.Register = NumberOf(instruction.Op0Register);
        }
        else if (instruction.Op0Kind != OpKind.Memory && instruction.Op0Kind != OpKind.Register)
        {
            step.Op = StepOp.PushConstant;
            step.Operand = unchecked((long)instruction.GetImmediate(0));
        }
    }

    /// <summary>
    /// Moves what is read for the sake of a result alone from the uses to <see cref="CodeStep.NeededUse"/>, and copies of parts to their own fields: only
    /// for instructions that do nothing but compute registers and flags. Addresses of memory stay uses.
    /// </summary>
    private static void NoteResult(in Instruction instruction, ref CodeStep step)
    {
        if (instruction.OpCount == 0 || step.Op == StepOp.Store || !IsPure(instruction) || (instruction.Op0Kind != OpKind.Register && !OnlyFlags(instruction.Mnemonic)))
        {
            return;
        }

        ulong addresses = 0;
        for (int i = 0; i < instruction.OpCount; i++)
        {
            if (instruction.GetOpKind(i) == OpKind.Memory && instruction.Mnemonic != Mnemonic.Lea)
            {
                addresses |= RegisterParts.Of(instruction.MemoryBase) | RegisterParts.Of(instruction.MemoryIndex);
            }
        }

        ulong read = step.Use;
        ulong flags = RegisterParts.Of(instruction.RflagsModified & ~Ignored);
        ulong result = OnlyFlags(instruction.Mnemonic) || instruction.Op0Kind != OpKind.Register ? 0 : Written(instruction.Op0Register);
        step.Use = addresses;
        step.Needs = flags | result;
        step.NeededUse = read;
        if (instruction.Op0Kind != OpKind.Register || !instruction.Op0Register.IsGPR())
        {
            step.Use = read;
            return;
        }

        int to = NumberOf(instruction.Op0Register);
        ulong own = RegisterParts.Of(instruction.Op0Register);
        if (instruction.Op1Kind == OpKind.Register && instruction.OpCount == 2 && instruction.Op0Register == instruction.Op1Register
            && instruction.Mnemonic is Mnemonic.Xor or Mnemonic.Sub or Mnemonic.Sbb)
        {
            step.NeededUse &= instruction.Mnemonic == Mnemonic.Sbb ? ~RegisterParts.Whole(to) : 0; // the same whatever the register holds; sbb: of the carry alone
            if (instruction.Mnemonic != Mnemonic.Sbb && instruction.Op0Register.GetSize() >= 4)
            {
                step.Op = StepOp.Constant;
                step.Register = (sbyte)to;
                step.Operand = 0;
            }

            return;
        }

        bool highByte = instruction.Op0Register is >= Register.AH and <= Register.BH || (instruction.OpCount > 1 && instruction.Op1Kind == OpKind.Register && instruction.Op1Register is >= Register.AH and <= Register.BH);
        if (highByte)
        {
            return;
        }

        switch (instruction.Mnemonic)
        {
            case Mnemonic.Mov or Mnemonic.Movzx when instruction.Op1Kind == OpKind.Register && instruction.Op1Register.IsGPR():
                step.NeededUse = 0;
                step.Copy = CodeStep.CopyOf(to, NumberOf(instruction.Op1Register), PartsOf(Math.Min(instruction.Op0Register.GetSize(), instruction.Op1Register.GetSize())));
                break;
            case >= Mnemonic.Cmova and <= Mnemonic.Cmovs:
                step.NeededUse = read & RegisterParts.Flags;
                step.Kill &= ~own;
                step.Copy = instruction.Op1Kind == OpKind.Register ? CodeStep.CopyOf(to, NumberOf(instruction.Op1Register), PartsOf(instruction.Op1Register.GetSize())) : (ushort)0;
                step.Copy2 = CodeStep.CopyOf(to, to, PartsOf(instruction.Op0Register.GetSize()));
                break;
            case Mnemonic.Not:
                step.NeededUse = 0;
                step.Copy = CodeStep.CopyOf(to, to, PartsOf(instruction.Op0Register.GetSize()));
                break;
            case Mnemonic.And or Mnemonic.Or or Mnemonic.Xor when instruction.Op1Kind == OpKind.Register || IsImmediate(instruction):
                NoteBitwise(instruction, flags, ref step);
                break;
            default:
                break;
        }
    }

    /// <summary>and, or, xor: each part of the result needs the same part of the operands; a constant of zeros or ones hides it. The flags need all of it.</summary>
    private static void NoteBitwise(in Instruction instruction, ulong flags, ref CodeStep step)
    {
        int to = NumberOf(instruction.Op0Register);
        int parts = PartsOf(instruction.Op0Register.GetSize());
        if (instruction.Op1Kind == OpKind.Register)
        {
            step.Copy2 = CodeStep.CopyOf(to, NumberOf(instruction.Op1Register), parts);
        }
        else if (instruction.Mnemonic != Mnemonic.Xor)
        {
            ulong constant = instruction.GetImmediate(1);
            constant = instruction.Mnemonic == Mnemonic.And ? constant : ~constant;
            ulong top = instruction.Op0Register.GetSize() == 8 ? constant >> 16 : (constant >> 16) & 0xffff;
            parts &= ((constant & 0xff) != 0 ? 1 : 0) | ((constant & 0xff00) != 0 ? 2 : 0) | (top != 0 ? 4 : 0);
            step.NeededUse &= ~RegisterParts.Whole(to) | ((ulong)parts << (3 * to));
        }

        step.Copy = CodeStep.CopyOf(to, to, parts);
        step.Needs = flags;
    }

    private static bool IsPure(in Instruction instruction) => instruction.Mnemonic switch
    {
        Mnemonic.Mov or Mnemonic.Movzx or Mnemonic.Movsx or Mnemonic.Movsxd or Mnemonic.Lea or Mnemonic.Add or Mnemonic.Sub or Mnemonic.Adc or Mnemonic.Sbb => true,
        Mnemonic.And or Mnemonic.Or or Mnemonic.Xor or Mnemonic.Not or Mnemonic.Neg or Mnemonic.Inc or Mnemonic.Dec or Mnemonic.Bswap => true,
        Mnemonic.Shl or Mnemonic.Shr or Mnemonic.Sar or Mnemonic.Rol or Mnemonic.Ror => true,
        Mnemonic.Cmp or Mnemonic.Test => true,
        Mnemonic.Imul => instruction.OpCount > 1, // the short form writes rdx:rax
        >= Mnemonic.Seta and <= Mnemonic.Sets => true,
        >= Mnemonic.Cmova and <= Mnemonic.Cmovs => true,
        _ => false,
    };

    private static bool OnlyFlags(Mnemonic mnemonic) => mnemonic is Mnemonic.Cmp or Mnemonic.Test;

    /// <summary>Shifts and rotations by cl leave the flags as they are where cl is 0.</summary>
    private static bool IsShiftByRegister(in Instruction instruction) =>
        instruction.Mnemonic is Mnemonic.Shl or Mnemonic.Shr or Mnemonic.Sar or Mnemonic.Rol or Mnemonic.Ror or Mnemonic.Rcl or Mnemonic.Rcr or Mnemonic.Sal or Mnemonic.Shld or Mnemonic.Shrd
        && instruction.GetOpKind(instruction.OpCount - 1) == OpKind.Register;

    /// <summary>Parts that an operand written to changes: a write of 32 bits clears the rest.</summary>
    private static ulong Written(Register register) => register.GetSize() >= 4 ? RegisterParts.Whole(NumberOf(register)) : RegisterParts.Of(register);

    private static int PartsOf(int size) => size switch { 1 => 1, 2 => 3, _ => 7 };

    private static bool IsImmediate(in Instruction instruction) => instruction.OpCount == 2 && instruction.Op1Kind is >= OpKind.Immediate8 and <= OpKind.Immediate32to64;

    private static sbyte NumberOf(Register register) => register.IsGPR() ? (sbyte)register.GetFullRegister().GetNumber() : CodeStep.NoRegister;

    private bool IsWhole(Register register) => register.IsGPR() && register.GetSize() == _word;

    private bool IsFollowed(in Instruction instruction) =>
        instruction.MemoryIndex == Register.None && instruction.MemoryBase.IsGPR() && instruction.MemoryBase.GetSize() == _word && instruction.SegmentPrefix is not (Register.FS or Register.GS);

    private void NoteAddress(in Instruction instruction, ref CodeStep step)
    {
        step.Base = NumberOf(instruction.MemoryBase);
        step.Operand = instruction.IsIPRelativeMemoryOperand ? unchecked((long)instruction.IPRelativeMemoryAddress) : Displacement(instruction.MemoryDisplacement64);
    }

    private long Displacement(ulong value) => bitness == 64 ? unchecked((long)value) : unchecked((int)value);
}
