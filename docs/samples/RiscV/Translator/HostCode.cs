using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;
using HostInstruction = Iced.Intel.Instruction;

namespace RiscV.Translator;

/// <summary>
/// Emits host instructions with guest registers as operands, wherever those are. rax, rcx and rdx are scratch: their contents last for one guest instruction.
/// </summary>
internal sealed class HostCode(Assembler assembler, RegisterMap map)
{
    public Assembler Asm { get; } = assembler;

    public RegisterMap Map { get; } = map;

    /// <summary>The lower half of a 64-bit register.</summary>
    public static Register Low(Register register) => register - Register.RAX + Register.EAX;

    /// <summary>Two host registers: <c>add r8, rax</c>.</summary>
    public void Add(Code code, Register first, Register second) => Asm.AddInstruction(HostInstruction.Create(code, first, second));

    /// <summary>A host register and a constant, which takes one byte where it can.</summary>
    public void Add(Code code, Register first, int constant) =>
        Asm.AddInstruction(HostInstruction.Create((sbyte)constant == constant ? WithByte(code) : code, first, constant));

    /// <summary>A host register and a guest register, 64 bits of both: <c>add rax, x5</c>.</summary>
    public void Add64(Code code, Register first, int guest) => Asm.AddInstruction(Map.IsPinned(guest)
        ? HostInstruction.Create(code, first, Map.HostOr(guest, default))
        : HostInstruction.Create(code, first, RegisterMap.Home(guest)));

    /// <summary>As <see cref="Add64"/>, the guest register's lower half: <c>movsxd rax, dword x5</c>.</summary>
    public void Add32(Code code, Register first, int guest) => Asm.AddInstruction(Map.IsPinned(guest)
        ? HostInstruction.Create(code, first, Low(Map.HostOr(guest, default)))
        : HostInstruction.Create(code, first, RegisterMap.Home(guest)));

    /// <summary>A guest register into a host register.</summary>
    public void Load(Register host, int guest)
    {
        if (guest == 0)
        {
            Add(Code.Xor_r32_rm32, Low(host), Low(host));
        }
        else if (host != Map.HostOr(guest, Register.None))
        {
            Add64(Code.Mov_r64_rm64, host, guest);
        }
    }

    /// <summary>A host register into a guest register. Writes to x0 are not made.</summary>
    public void Store(int guest, Register host)
    {
        if (guest != 0 && host != Map.HostOr(guest, Register.None))
        {
            Asm.AddInstruction(Map.IsPinned(guest)
                ? HostInstruction.Create(Code.Mov_r64_rm64, Map.HostOr(guest, default), host)
                : HostInstruction.Create(Code.Mov_rm64_r64, RegisterMap.Home(guest), host));
        }
    }

    /// <summary>A constant into a guest register.</summary>
    public void Set(int guest, ulong value)
    {
        if (guest != 0)
        {
            Register target = Map.HostOr(guest, Register.RAX);
            SetHost(target, value);
            Store(guest, target);
        }
    }

    /// <summary>A constant into a host register, the shortest way.</summary>
    public void SetHost(Register host, ulong value) => Asm.AddInstruction(
        value == 0 ? HostInstruction.Create(Code.Xor_r32_rm32, Low(host), Low(host))
        : value <= uint.MaxValue ? HostInstruction.Create(Code.Mov_r32_imm32, Low(host), (uint)value)
        : (long)value == (int)value ? HostInstruction.Create(Code.Mov_rm64_imm32, host, (int)value)
        : HostInstruction.Create(Code.Mov_r64_imm64, host, value));

    /// <summary>A guest register and a constant into a host register, in one instruction where the guest register is in one.</summary>
    public void LoadSum(Register host, int guest, int constant)
    {
        if (constant == 0 || guest == 0)
        {
            if (guest == 0)
            {
                SetHost(host, (ulong)constant);
            }
            else
            {
                Load(host, guest);
            }
        }
        else if (Map.IsPinned(guest) && Map.HostOr(guest, default) != host)
        {
            Asm.AddInstruction(HostInstruction.Create(Code.Lea_r64_m, host, new MemoryOperand(Map.HostOr(guest, default), constant)));
        }
        else
        {
            Load(host, guest);
            Add(Code.Add_rm64_imm32, host, constant);
        }
    }

    /// <summary>Compares two guest registers.</summary>
    public void Compare(int first, int second)
    {
        if (second == 0 && Map.IsPinned(first))
        {
            Add(Code.Test_rm64_r64, Map.HostOr(first, default), Map.HostOr(first, default));
        }
        else if (second == 0)
        {
            Asm.cmp(__qword_ptr[rbp + Host.CpuLayout.X(first)], 0);
        }
        else if (!Map.IsPinned(first) && Map.IsPinned(second))
        {
            Asm.AddInstruction(HostInstruction.Create(Code.Cmp_rm64_r64, RegisterMap.Home(first), Map.HostOr(second, default)));
        }
        else
        {
            Register host = Map.HostOr(first, Register.RAX);
            Load(host, first);
            Add64(Code.Cmp_r64_rm64, host, second);
        }
    }

    private static Code WithByte(Code code) => code switch
    {
        Code.Add_rm64_imm32 => Code.Add_rm64_imm8,
        Code.Add_rm32_imm32 => Code.Add_rm32_imm8,
        Code.Xor_rm64_imm32 => Code.Xor_rm64_imm8,
        Code.Or_rm64_imm32 => Code.Or_rm64_imm8,
        Code.And_rm64_imm32 => Code.And_rm64_imm8,
        Code.Cmp_rm64_imm32 => Code.Cmp_rm64_imm8,
        _ => code,
    };
}
