using Iced.Intel;
using RiscV.Host;
using GuestDecoder = RiscV.Isa.Decoder;
using GuestInstruction = RiscV.Isa.Instruction;
using HostInstruction = Iced.Intel.Instruction;

namespace RiscV.Translator;

/// <summary>
/// Where guest registers are while generated code runs: those the program uses most in host registers, the same ones everywhere, the others
/// in <see cref="CpuState"/>. Because it is the same everywhere, a jump from any block to any other moves nothing.
/// </summary>
internal sealed unsafe class RegisterMap
{
    private const int CountedWords = 1 << 16;
    private const int LoopWeight = 3; // a loop counts eight times what is around it
    private const int DeepestLoop = 4;

    // What is left beside rax, rcx, rdx, rsi and rdi (HostCode's), rbx (window), rbp (CpuState), rsp and r15 (ticks).
    private static readonly Register[] s_free =
        [Register.R8, Register.R9, Register.R10, Register.R11, Register.R12, Register.R13, Register.R14];

    private readonly Register[] _hosts = new Register[32];

    /// <summary>Chooses for a program by how often its code names each register, loops counted more.</summary>
    public RegisterMap(CpuState* cpu)
    {
        int[] guests = [.. Enumerable.Range(1, 31)];
        Array.Sort([.. CountUses(cpu).Skip(1).Select(static n => -n)], guests);
        for (int i = 0; i < s_free.Length; i++)
        {
            _hosts[guests[i]] = s_free[i];
        }
    }

    /// <summary>Guest registers that live in host registers.</summary>
    public IEnumerable<int> Pinned => Enumerable.Range(1, 31).Where(g => TryGet(g, out _));

    /// <summary>The host register of a guest register; whether it has one.</summary>
    public bool TryGet(int guest, out Register host)
    {
        host = _hosts[guest];
        return host != Register.None;
    }

    /// <summary>The memory of a guest register. That of x0 is zero for good.</summary>
    public static MemoryOperand Home(int guest) => new(Register.RBP, CpuLayout.X(guest));

    /// <summary>
    /// Writes all host registers to their guest registers' memory, and the ticks; what C# sees, and what stays when the guest is left.
    /// </summary>
    public void EmitSpill(Assembler a) =>
        EmitMoves(a, static (register, home) => HostInstruction.Create(Code.Mov_rm64_r64, home, register));

    /// <summary>The way back.</summary>
    public void EmitFill(Assembler a) =>
        EmitMoves(a, static (register, home) => HostInstruction.Create(Code.Mov_r64_rm64, register, home));

    private void EmitMoves(Assembler a, Func<Register, MemoryOperand, HostInstruction> move)
    {
        foreach (int guest in Pinned)
        {
            a.AddInstruction(move(_hosts[guest], Home(guest)));
        }

        a.AddInstruction(move(Register.R15, new MemoryOperand(Register.RBP, CpuLayout.TicksLeft)));
    }

    private static long[] CountUses(CpuState* cpu)
    {
        var code = new ReadOnlySpan<uint>(cpu->Window + cpu->CodeStart, (int)Math.Min(cpu->CodeWords, CountedWords));
        var instructions = new GuestInstruction[code.Length];
        int[] loops = new int[code.Length + 1]; // how many begin at a word, less those that ended before it
        for (int i = 0; i < code.Length; i++)
        {
            instructions[i] = GuestDecoder.Decode(code[i]);
            int target = i + instructions[i].Imm / 4;
            if (instructions[i].IsGoto && target >= 0 && target < i)
            {
                loops[target]++;
                loops[i + 1]--;
            }
        }

        long[] uses = new long[32];
        int depth = 0;
        for (int i = 0; i < code.Length; i++)
        {
            depth += loops[i];
            long weight = 1L << LoopWeight * Math.Min(depth, DeepestLoop);
            (bool rd, bool rs1, bool rs2) = instructions[i].Operands;
            uses[instructions[i].Rd] += rd ? weight : 0;
            uses[instructions[i].Rs1] += rs1 ? weight : 0;
            uses[instructions[i].Rs2] += rs2 ? weight : 0;
        }

        return uses;
    }
}
