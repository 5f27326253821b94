using Iced.Intel;

namespace PvPatch.Analysis;

/// <content>What is read for the sake of a result alone, part by part.</content>
internal sealed partial class StepReader
{
    /// <summary>
    /// Moves what is read for the sake of a result alone from the uses to <see cref="CodeStep.NeededUse"/>, and copies of parts to their
    /// own fields: only for instructions that do nothing but compute registers and flags. Addresses of memory stay uses.
    /// </summary>
    private static void NoteResult(in Instruction instruction, ref CodeStep step)
    {
        if (instruction.OpCount == 0 || step.Op == StepOp.Store || !IsPure(instruction)
            || (instruction.Op0Kind != OpKind.Register && !OnlyFlags(instruction.Mnemonic)))
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
            // the same whatever the register holds; sbb: of the carry alone
            step.NeededUse &= instruction.Mnemonic == Mnemonic.Sbb ? ~RegisterParts.Whole(to) : 0;
            if (instruction.Mnemonic != Mnemonic.Sbb && instruction.Op0Register.GetSize() >= 4)
            {
                step.Op = StepOp.Constant;
                step.Register = (sbyte)to;
                step.Operand = 0;
            }

            return;
        }

        bool highByte = instruction.Op0Register is >= Register.AH and <= Register.BH || (instruction.OpCount > 1
            && instruction.Op1Kind == OpKind.Register && instruction.Op1Register is >= Register.AH and <= Register.BH);
        if (highByte)
        {
            return;
        }

        switch (instruction.Mnemonic)
        {
            case Mnemonic.Mov or Mnemonic.Movzx when instruction.Op1Kind == OpKind.Register && instruction.Op1Register.IsGPR():
                step.NeededUse = 0;
                step.Copy = CodeStep.CopyOf(to, NumberOf(instruction.Op1Register),
                    PartsOf(Math.Min(instruction.Op0Register.GetSize(), instruction.Op1Register.GetSize())));
                break;
            case >= Mnemonic.Cmova and <= Mnemonic.Cmovs:
                step.NeededUse = read & RegisterParts.Flags;
                step.Kill &= ~own;
                step.Copy = instruction.Op1Kind == OpKind.Register
                    ? CodeStep.CopyOf(to, NumberOf(instruction.Op1Register), PartsOf(instruction.Op1Register.GetSize())) : (ushort)0;
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

    /// <summary>
    /// and, or, xor: each part of the result needs the same part of the operands; a constant of zeros or ones hides it. The flags need all
    /// of it.
    /// </summary>
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
        Mnemonic.Mov or Mnemonic.Movzx or Mnemonic.Movsx or Mnemonic.Movsxd or Mnemonic.Lea or Mnemonic.Add or Mnemonic.Sub or Mnemonic.Adc
            or Mnemonic.Sbb => true,
        Mnemonic.And or Mnemonic.Or or Mnemonic.Xor or Mnemonic.Not or Mnemonic.Neg or Mnemonic.Inc or Mnemonic.Dec or Mnemonic.Bswap =>
            true,
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
        instruction.Mnemonic is Mnemonic.Shl or Mnemonic.Shr or Mnemonic.Sar or Mnemonic.Rol or Mnemonic.Ror or Mnemonic.Rcl or Mnemonic.Rcr
            or Mnemonic.Sal or Mnemonic.Shld or Mnemonic.Shrd
        && instruction.GetOpKind(instruction.OpCount - 1) == OpKind.Register;

    /// <summary>Parts that an operand written to changes: a write of 32 bits clears the rest.</summary>
    private static ulong Written(Register register) =>
        register.GetSize() >= 4 ? RegisterParts.Whole(NumberOf(register)) : RegisterParts.Of(register);

    private static int PartsOf(int size) => size switch { 1 => 1, 2 => 3, _ => 7 };

    private static bool IsImmediate(in Instruction instruction) =>
        instruction.OpCount == 2 && instruction.Op1Kind is >= OpKind.Immediate8 and <= OpKind.Immediate32to64;
}
