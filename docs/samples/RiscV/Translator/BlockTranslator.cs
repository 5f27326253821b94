using Iced.Intel;
using PvPatch.Live;
using PvPatch.Mechanisms;
using RiscV.Host;
using RiscV.Isa;
using RiscV.Patching;
using static Iced.Intel.AssemblerRegisters;
using GuestDecoder = RiscV.Isa.Decoder;
using GuestInstruction = RiscV.Isa.Instruction;

namespace RiscV.Translator;

/// <summary>
/// Translates basic blocks: guest instructions up to the first that may jump. Nothing stays in host registers from one guest instruction to
/// the next, so that the guest's state is complete in <see cref="CpuState"/> at every site and any backend may stop there.
/// </summary>
internal sealed unsafe class BlockTranslator
{
    private const int MaxInstructions = 64;

    private readonly CodeArena _arena;
    private readonly Stubs _stubs;
    private readonly CpuState* _cpu;
    private readonly SiteEmitter _sites = new(GuestOps.Layout);
    private readonly List<SitePoint> _points = [];
    private Assembler _asm = new(64);
    private ulong _pc;
    private int _left;

    public BlockTranslator(CodeArena arena, Stubs stubs, CpuState* cpu)
    {
        _arena = arena;
        _stubs = stubs;
        _cpu = cpu;
    }

    /// <summary>Translates the block at a guest address, which lies in the code and is a multiple of four.</summary>
    public TranslatedBlock Translate(ulong pc)
    {
        List<GuestInstruction> instructions = Decode(pc);
        _asm = new Assembler(64);
        _points.Clear();
        _pc = pc;
        _left = instructions.Count;
        EmitHead(pc, instructions.Count);
        foreach (GuestInstruction instruction in instructions)
        {
            EmitInstruction(instruction);
            _pc += 4;
            _left--;
        }

        if (!instructions[^1].EndsBlock)
        {
            EmitExit(_pc);
        }

        CodeBlock block = _arena.Emit(_asm, _sites);
        return new TranslatedBlock(pc, WordsAt(pc, instructions.Count).ToArray(), block, [.. _points]);
    }

    /// <summary>Whether the guest still holds the instructions a block was made from.</summary>
    public bool IsCurrent(TranslatedBlock block) => WordsAt(block.Pc, block.Words.Length).SequenceEqual(block.Words);

    private ReadOnlySpan<uint> WordsAt(ulong pc, int count) => new(_cpu->Window + pc, count);

    private List<GuestInstruction> Decode(ulong pc)
    {
        var instructions = new List<GuestInstruction>();
        ulong end = _cpu->CodeStart + _cpu->CodeWords * 4;
        for (; pc < end && instructions.Count < MaxInstructions; pc += 4)
        {
            instructions.Add(GuestDecoder.Decode(*(uint*)(_cpu->Window + pc)));
            if (instructions[^1].EndsBlock)
            {
                break;
            }
        }

        return instructions;
    }

    /// <summary>
    /// The timer: pays for the whole block, or leaves before it. This is also how a guest that loops for ever is stopped.
    /// </summary>
    private void EmitHead(ulong pc, int count)
    {
        _asm.mov(eax, (uint)pc);
        _asm.mov(ecx, count);
        EmitSite(GuestOps.Tick);
        _asm.js(_stubs.OutOfTicks.Value);
        EmitSite(GuestOps.Block);
    }

    private void EmitInstruction(GuestInstruction instruction)
    {
        switch (instruction.Op)
        {
            case Op.Jal:
                EmitJal(instruction);
                break;
            case Op.Jalr:
                EmitJalr(instruction);
                break;
            case >= Op.Beq and <= Op.Bgeu:
                EmitBranch(instruction);
                break;
            case >= Op.Lb and <= Op.Sd:
                EmitAccess(instruction);
                break;
            case Op.Fence:
                break;
            case Op.FenceI:
                _asm.mov(rax, _pc + 4);
                _asm.jmp(_stubs.CodeChanged.Value);
                break;
            case Op.Ecall:
                EmitSite(GuestOps.Ecall);
                break;
            case Op.Ebreak:
                EmitSite(GuestOps.Ebreak);
                break;
            case Op.Illegal:
                EmitSite(GuestOps.Illegal);
                break;
            case >= Op.Mul and <= Op.Remuw:
                MulDivEmitter.Emit(_asm, instruction);
                break;
            default:
                AluEmitter.Emit(_asm, instruction, _pc);
                break;
        }
    }

    private void EmitAccess(GuestInstruction instruction)
    {
        GuestRegisters.Load(_asm, rdi, instruction.Rs1);
        if (instruction.Imm != 0)
        {
            _asm.add(rdi, instruction.Imm);
        }

        _asm.mov(edx, edi);
        if (instruction.IsStore)
        {
            GuestRegisters.Load(_asm, rsi, instruction.Rs2);
        }

        EmitSite(GuestOps.Access(instruction.Op));
        if (instruction.IsLoad)
        {
            GuestRegisters.Store(_asm, instruction.Rd, rax);
        }
    }

    private void EmitSite(OpSlot slot)
    {
        _sites.Emit(_asm, slot, GuestOps.Budget, slot == GuestOps.Tick ? GuestOps.TickClobbers : null, GuestOps.Placement);
        _points.Add(new SitePoint(_pc, _left));
    }

    private void EmitBranch(GuestInstruction instruction)
    {
        Label taken = _asm.CreateLabel();
        GuestRegisters.Load(_asm, rax, instruction.Rs1);
        GuestRegisters.Load(_asm, rcx, instruction.Rs2);
        _asm.cmp(rax, rcx);
        switch (instruction.Op)
        {
            case Op.Beq:
                _asm.je(taken);
                break;
            case Op.Bne:
                _asm.jne(taken);
                break;
            case Op.Blt:
                _asm.jl(taken);
                break;
            case Op.Bge:
                _asm.jge(taken);
                break;
            case Op.Bltu:
                _asm.jb(taken);
                break;
            default:
                _asm.jae(taken);
                break;
        }

        EmitExit(_pc + 4);
        _asm.Label(ref taken);
        EmitExit(_pc + (ulong)instruction.Imm);
    }

    private void EmitJal(GuestInstruction instruction)
    {
        ulong target = _pc + (ulong)instruction.Imm;
        if ((target & 3) == 0)
        {
            _asm.mov(rax, _pc + 4);
            GuestRegisters.Store(_asm, instruction.Rd, rax);
        }

        EmitExit(target);
    }

    private void EmitJalr(GuestInstruction instruction)
    {
        Label aligned = _asm.CreateLabel();
        GuestRegisters.Load(_asm, rax, instruction.Rs1);
        _asm.add(rax, instruction.Imm);
        _asm.and(rax, -2);
        _asm.test(al, 3);
        _asm.jz(aligned);
        EmitSite(GuestOps.FetchMisaligned);
        _asm.Label(ref aligned);
        _asm.mov(rcx, _pc + 4);
        GuestRegisters.Store(_asm, instruction.Rd, rcx);
        _asm.mov(rcx, rax);
        _asm.sub(rcx, __qword_ptr[r15 + CpuLayout.CodeStart]);
        _asm.shr(rcx, 2);
        _asm.cmp(rcx, __qword_ptr[r15 + CpuLayout.CodeWords]);
        _asm.jae(_stubs.Untranslated.Value);
        _asm.jmp(__qword_ptr[r14 + rcx * 8]);
    }

    /// <summary>Goes on at a known guest address, through its link.</summary>
    private void EmitExit(ulong target)
    {
        if ((target & 3) != 0)
        {
            EmitSite(GuestOps.FetchMisaligned);
            return;
        }

        ulong word = (target - _cpu->CodeStart) / 4;
        _asm.mov(rax, target);
        if (word < _cpu->CodeWords)
        {
            _asm.jmp(__qword_ptr[r14 + (int)word * 8]);
        }
        else
        {
            _asm.jmp(_stubs.Untranslated.Value);
        }
    }
}
