using Iced.Intel;
using HostInstruction = Iced.Intel.Instruction;

namespace RiscV.Translator;

/// <summary>
/// Emits host instructions that read and write guest registers. Those that live in memory are also kept in four host registers for as long as a block lasts and nobody
/// else needs these. A write always goes to memory too, so the guest's state is complete at every site. It also knows which guest registers hold a sign-extended word.
/// </summary>
internal sealed class HostCode(Assembler assembler, RegisterMap map)
{
    // rcx is never among them: it is the count of a shift, the low half of an address, the length of a block.
    private static readonly Register[] s_copies = [Register.RSI, Register.RDI, Register.RDX, Register.RAX];

    private readonly int[] _guests = new int[s_copies.Length]; // whose copy it is; 0: nobody's
    private readonly long[] _lastUse = new long[s_copies.Length];
    private long _now = 1;
    private long _start;
    private uint _words;

    public Assembler Asm { get; } = assembler;

    /// <summary>The lower half of a 64-bit register.</summary>
    public static Register Low(Register register) => register - Register.RAX + Register.EAX;

    /// <summary>Forgets everything: another block may have led here.</summary>
    public void Forget()
    {
        Array.Clear(_guests);
        _words = 0;
    }

    /// <summary>Begins a guest instruction: what is read, claimed or a target from now on stays in its host register until the next one begins.</summary>
    public void Begin() => _start = _now;

    /// <summary>Takes host registers for other uses: whose copies they were is forgotten.</summary>
    public void Claim(params ReadOnlySpan<Register> hosts)
    {
        foreach (Register host in hosts)
        {
            _guests[Array.IndexOf(s_copies, host)] = 0;
            _lastUse[Array.IndexOf(s_copies, host)] = _now++;
        }
    }

    /// <summary>Whether a guest register is known to hold a sign-extended word of 32 bits.</summary>
    public bool IsWord(int guest) => guest == 0 || (_words >> guest & 1) != 0;

    /// <summary>A host register that holds a guest register's value, for reading.</summary>
    public Register Read(int guest)
    {
        if (map.TryGet(guest, out Register host))
        {
            return host;
        }

        int copy = guest == 0 ? -1 : Array.IndexOf(_guests, guest);
        if (copy < 0)
        {
            copy = Take();
            _guests[copy] = guest;
            if (guest == 0)
            {
                Set(s_copies[copy], 0);
            }
            else
            {
                Asm.AddInstruction(HostInstruction.Create(Code.Mov_r64_rm64, s_copies[copy], RegisterMap.Home(guest)));
            }
        }

        _lastUse[copy] = _now++;
        return s_copies[copy];
    }

    /// <summary>A guest register's value into a certain host register, which may be changed then.</summary>
    public void Read(Register host, int guest)
    {
        if (guest == 0)
        {
            Set(host, 0);
        }
        else
        {
            Move(host, Read(guest));
        }
    }

    /// <summary>
    /// The host register in which to compute a guest register's new value: one that holds no value read for this instruction, but where the guest register is itself
    /// read as the first operand. <see cref="Write"/> ends the computation.
    /// </summary>
    public Register Target(int guest, int first)
    {
        if (map.TryGet(guest, out Register host))
        {
            return host;
        }

        int copy = guest == first ? Array.IndexOf(_guests, guest) : -1;
        copy = copy < 0 ? Take() : copy;
        _guests[copy] = 0; // until it is written
        _lastUse[copy] = _now++;
        return s_copies[copy];
    }

    /// <summary>A host register's value into a guest register. Writes to x0 are not made.</summary>
    public void Write(int guest, Register host, bool isWord = false)
    {
        if (guest == 0)
        {
            return;
        }

        _words = isWord ? _words | 1u << guest : _words & ~(1u << guest);
        if (map.TryGet(guest, out Register home))
        {
            Move(home, host);
            return;
        }

        Asm.AddInstruction(HostInstruction.Create(Code.Mov_rm64_r64, RegisterMap.Home(guest), host));
        int old = Array.IndexOf(_guests, guest);
        if (old >= 0)
        {
            _guests[old] = 0;
        }

        _guests[Array.IndexOf(s_copies, host)] = guest;
    }

    /// <summary>A constant into a guest register.</summary>
    public void WriteConstant(int guest, ulong value)
    {
        if (guest != 0)
        {
            Register target = Target(guest, guest);
            Set(target, value);
            Write(guest, target, (long)value == (int)value);
        }
    }

    /// <summary>A constant into a host register, the shortest way.</summary>
    public void Set(Register host, ulong value) => Asm.AddInstruction(
        value == 0 ? HostInstruction.Create(Code.Xor_r32_rm32, Low(host), Low(host))
        : value <= uint.MaxValue ? HostInstruction.Create(Code.Mov_r32_imm32, Low(host), (uint)value)
        : (long)value == (int)value ? HostInstruction.Create(Code.Mov_rm64_imm32, host, (int)value)
        : HostInstruction.Create(Code.Mov_r64_imm64, host, value));

    public void Move(Register to, Register from)
    {
        if (to != from)
        {
            Add(Code.Mov_r64_rm64, to, from);
        }
    }

    public void Add(Code code, Register first, Register second) => Asm.AddInstruction(HostInstruction.Create(code, first, second));

    /// <summary>An instruction with a constant, which takes one byte where it can.</summary>
    public void Add(Code code, Register first, int constant) =>
        Asm.AddInstruction(HostInstruction.Create((sbyte)constant == constant ? WithByte(code) : code, first, constant));

    /// <summary>A sum of two registers, the second taken so many times.</summary>
    public void AddSum(Register target, Register first, Register second, int scale = 1) =>
        Asm.AddInstruction(HostInstruction.Create(Code.Lea_r64_m, target, new MemoryOperand(first, second, scale)));

    /// <summary>A guest register and a constant into a host register.</summary>
    public void ReadSum(Register host, int guest, int constant)
    {
        if (guest == 0)
        {
            Set(host, (ulong)constant);
        }
        else if (constant == 0)
        {
            Move(host, Read(guest));
        }
        else if (Read(guest) == host)
        {
            Add(Code.Add_rm64_imm32, host, constant);
        }
        else
        {
            Asm.AddInstruction(HostInstruction.Create(Code.Lea_r64_m, host, new MemoryOperand(Read(guest), constant)));
        }
    }

    /// <summary>Compares two guest registers.</summary>
    public void Compare(int first, int second)
    {
        Register host = Read(first);
        if (second == 0)
        {
            Add(Code.Test_rm64_r64, host, host);
        }
        else
        {
            Add(Code.Cmp_r64_rm64, host, Read(second));
        }
    }

    /// <summary>One that is nobody's copy and not in use for this instruction, else the one that was used longest ago.</summary>
    private int Take()
    {
        int best = -1;
        for (int i = 0; i < s_copies.Length; i++)
        {
            if (_lastUse[i] < _start && (best < 0 || (_guests[best] != 0 && (_guests[i] == 0 || _lastUse[i] < _lastUse[best]))))
            {
                best = i;
            }
        }

        return best;
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
