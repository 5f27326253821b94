using Iced.Intel;
using GuestInstruction = RiscV.Isa.Instruction;
using HostInstruction = Iced.Intel.Instruction;

namespace RiscV.Translator;

/// <summary>
/// Emits host instructions that read and write guest registers. Those that live in memory are also kept in four host registers for as long
/// as a block lasts and nobody else needs these. A write always goes to memory too, so the guest's state is complete at every site. It also
/// knows which guest registers hold a sign-extended word.
/// </summary>
internal sealed class HostCode(Assembler assembler, RegisterMap map)
{
    // rcx is never among them: it is the count of a shift, the low half of an address, the length of a block.
    private static readonly Register[] s_copies = [Register.RSI, Register.RDI, Register.RDX, Register.RAX];

    private readonly int[] _guests = new int[s_copies.Length]; // whose copy it is; 0: nobody's
    private readonly bool[] _inUse = new bool[s_copies.Length];
    private ArraySegment<GuestInstruction> _rest = [];
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

    /// <summary>
    /// Begins a guest instruction: what is read, claimed or a target from now on stays in its host register until the next one begins.
    /// </summary>
    /// <param name="rest">What comes behind it in its block.</param>
    public void Begin(ArraySegment<GuestInstruction> rest)
    {
        _rest = rest;
        Array.Clear(_inUse);
    }

    /// <summary>Takes host registers for other uses: whose copies they were is forgotten.</summary>
    public void Claim(params ReadOnlySpan<Register> hosts)
    {
        foreach (Register host in hosts)
        {
            _guests[Array.IndexOf(s_copies, host)] = 0;
            _inUse[Array.IndexOf(s_copies, host)] = true;
        }
    }

    /// <summary>Whether a guest register is known to hold a sign-extended word of 32 bits.</summary>
    public bool IsWord(int guest) => guest == 0 || (_words >> guest & 1) != 0;

    /// <summary>Whether a guest register's value is in a host register.</summary>
    public bool TryFind(int guest, out Register host)
    {
        if (map.TryGet(guest, out host))
        {
            return true;
        }

        int copy = guest == 0 ? -1 : Array.IndexOf(_guests, guest);
        if (copy >= 0)
        {
            _inUse[copy] = true;
            host = s_copies[copy];
        }

        return copy >= 0;
    }

    /// <summary>A host register that holds a guest register's value, for reading: loaded, if it is in none.</summary>
    public Register Read(int guest)
    {
        if (TryFind(guest, out Register host))
        {
            return host;
        }

        int copy = Take();
        Read(s_copies[copy], guest);
        _guests[copy] = guest;
        return s_copies[copy];
    }

    /// <summary>A guest register's value into a certain host register, which may be changed then.</summary>
    public void Read(Register host, int guest)
    {
        if (guest == 0)
        {
            Set(host, 0);
        }
        else if (!TryFind(guest, out Register from) || from != host)
        {
            Add(Code.Mov_r64_rm64, host, guest);
        }
    }

    /// <summary>
    /// The host register in which to compute a guest register's new value: one that holds no value read for this instruction, but where the
    /// guest register is itself read as the first operand. <see cref="Write"/> ends the computation.
    /// </summary>
    public Register Target(int guest, int first)
    {
        if (map.TryGet(guest, out Register host))
        {
            return host;
        }

        if (guest == first && TryFind(first, out host))
        {
            return host;
        }

        int copy = Take();
        _guests[copy] = 0; // until it is written
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

    /// <summary>An instruction whose second operand is a guest register, or its lower half, in a host register or in memory.</summary>
    public void Add(Code code, Register first, int guest, bool low = false) => Asm.AddInstruction(
        TryFind(guest, out Register second) ? HostInstruction.Create(code, first, low ? Low(second) : second)
        : HostInstruction.Create(code, first, RegisterMap.Home(guest)));

    /// <summary>An instruction with a constant, which takes one byte where it can.</summary>
    public void AddConstant(Code code, Register first, int constant) =>
        Asm.AddInstruction(HostInstruction.Create((sbyte)constant == constant ? WithByte(code) : code, first, constant));

    /// <summary>A sum of a register and a constant.</summary>
    public void AddSum(Register target, Register first, int constant) =>
        Asm.AddInstruction(HostInstruction.Create(Code.Lea_r64_m, target, new MemoryOperand(first, constant)));

    /// <summary>A sum of two registers, the second taken so many times.</summary>
    public void AddSum(Register target, Register first, Register second, int scale) =>
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
            AddConstant(Code.Add_rm64_imm32, host, constant);
        }
        else
        {
            AddSum(host, Read(guest), constant);
        }
    }

    /// <summary>Compares two guest registers.</summary>
    public void Compare(int first, int second)
    {
        if (second == 0)
        {
            Register host = Read(first);
            Add(Code.Test_rm64_r64, host, host);
        }
        else if (!TryFind(first, out _) && TryFind(second, out Register other))
        {
            Asm.AddInstruction(HostInstruction.Create(Code.Cmp_rm64_r64, RegisterMap.Home(first), other));
        }
        else
        {
            Add(Code.Cmp_r64_rm64, Read(first), second);
        }
    }

    /// <summary>
    /// One that is not in use for this instruction: nobody's copy, else that of the guest register which is read last of all in what is
    /// left of the block.
    /// </summary>
    private int Take()
    {
        int best = -1;
        int bestDistance = -1;
        for (int i = 0; i < s_copies.Length; i++)
        {
            int distance = _inUse[i] ? -1 : _guests[i] == 0 ? int.MaxValue : DistanceToRead(_guests[i]);
            if (distance > bestDistance)
            {
                (best, bestDistance) = (i, distance);
            }
        }

        _inUse[best] = true;
        return best;
    }

    private int DistanceToRead(int guest)
    {
        for (int i = 0; i < _rest.Count; i++)
        {
            (bool rd, bool rs1, bool rs2) = _rest[i].Operands;
            if ((rs1 && _rest[i].Rs1 == guest) || (rs2 && _rest[i].Rs2 == guest))
            {
                return i;
            }

            if (rd && _rest[i].Rd == guest)
            {
                break;
            }
        }

        return int.MaxValue - 1;
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
