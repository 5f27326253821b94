using Iced.Intel;
using PvPatch.Machine;

namespace PvPatch.Analysis;

/// <summary>Makes a step of one instruction.</summary>
internal sealed partial class StepReader(int bitness)
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
        if (instruction.IsSaveRestoreInstruction
            || instruction.Mnemonic is Mnemonic.Emms or Mnemonic.Femms or Mnemonic.Ldmxcsr or Mnemonic.Vldmxcsr)
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
        if (instruction.IsStackInstruction && memory.Base.GetFullRegister() == Register.RSP
            && instruction.MemoryBase.GetFullRegister() != Register.RSP)
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
                step.Flow = instruction.Mnemonic is Mnemonic.Vmcall or Mnemonic.Vmmcall or Mnemonic.Tdcall or Mnemonic.Seamcall
                    or Mnemonic.Syscall or Mnemonic.Sysenter
                    or Mnemonic.Vmlaunch or Mnemonic.Vmresume or Mnemonic.Vmrun or Mnemonic.Enclu or Mnemonic.Encls or Mnemonic.Getsec
                        or Mnemonic.Vmgexit
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
            case Mnemonic.Lea when registerTo && instruction.MemoryIndex == Register.None
                && (instruction.MemoryBase == Register.None || instruction.MemoryBase.GetSize() == _word):
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
            case Mnemonic.Mov when instruction.Op0Kind == OpKind.Register && instruction.Op0Register.GetSize() >= 4
                && instruction.Op0Register.IsGPR() && IsImmediate(instruction):
                step.Op = StepOp.Constant;
                step.Register = NumberOf(instruction.Op0Register);
                step.Operand = instruction.Op0Register.GetSize() == 4
                    ? (uint)instruction.GetImmediate(1) : unchecked((long)instruction.GetImmediate(1));
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

    private static sbyte NumberOf(Register register) =>
        register.IsGPR() ? (sbyte)register.GetFullRegister().GetNumber() : CodeStep.NoRegister;

    private bool IsWhole(Register register) => register.IsGPR() && register.GetSize() == _word;

    private bool IsFollowed(in Instruction instruction) =>
        instruction.MemoryIndex == Register.None && instruction.MemoryBase.IsGPR() && instruction.MemoryBase.GetSize() == _word
            && instruction.SegmentPrefix is not (Register.FS or Register.GS);

    private void NoteAddress(in Instruction instruction, ref CodeStep step)
    {
        step.Base = NumberOf(instruction.MemoryBase);
        step.Operand = instruction.IsIPRelativeMemoryOperand
            ? unchecked((long)instruction.IPRelativeMemoryAddress) : Displacement(instruction.MemoryDisplacement64);
    }

    private long Displacement(ulong value) => bitness == 64 ? unchecked((long)value) : unchecked((int)value);
}
