using Iced.Intel;
using PvPatch.Live;
using PvPatch.Mechanisms;
using RiscV.Host;
using RiscV.Isa;
using RiscV.Patching;
using static Iced.Intel.AssemblerRegisters;
using GuestInstruction = RiscV.Isa.Instruction;

namespace RiscV.Translator;

/// <summary>
/// Translates regions. What is rarely run (the timer has run out, a branch leaves the region, a jump stops) stands behind all blocks, so
/// that what is often run falls through.
/// </summary>
internal sealed unsafe class RegionTranslator
{
    private readonly CodeArena _arena;
    private readonly Stubs _stubs;
    private readonly CpuState* _cpu;
    private readonly bool _patchable;
    private readonly int _shift;
    private readonly SiteEmitter _sites = new(GuestOps.Layout);
    private readonly List<SitePoint> _points = [];
    private readonly Dictionary<ulong, Label> _labels = [];
    private readonly List<(SitePoint At, Action Emit)> _rare = [];
    private Assembler _asm = new(64);
    private HostCode _code;
    private SitePoint _at;

    public RegionTranslator(CodeArena arena, Stubs stubs, CpuState* cpu, bool patchable, int shift = 0)
    {
        _arena = arena;
        _stubs = stubs;
        _cpu = cpu;
        _patchable = patchable;
        _shift = shift;
        _code = new HostCode(_asm, stubs.Map);
    }

    /// <summary>Translates the region of a guest address, which lies in the code and is a multiple of four.</summary>
    public TranslatedRegion Translate(ulong pc)
    {
        var region = new GuestRegion(_cpu, pc);
        _asm = new Assembler(64);
        _code = new HostCode(_asm, _stubs.Map);
        _points.Clear();
        _labels.Clear();
        _rare.Clear();
        foreach (GuestBlock block in region.Blocks)
        {
            _labels.Add(block.Pc, _asm.CreateLabel());
        }

        if (_shift > 0)
        {
            _asm.nop(_shift);
        }

        for (int i = 0; i < region.Blocks.Count; i++)
        {
            EmitBlock(region.Blocks[i], i + 1 < region.Blocks.Count ? region.Blocks[i + 1].Pc : 0);
        }

        foreach ((SitePoint at, Action emit) in _rare)
        {
            _at = at;
            _code.Forget();
            _code.Begin([]);
            emit();
        }

        CodeBlock code = _arena.Emit(_asm, _sites, out CodeLabels labels);
        return new TranslatedRegion(region.Words, code, [.. _labels.Select(l => (l.Key, labels[l.Value].Value))], [.. _points]);
    }

    /// <summary>Whether the guest still holds the instructions a region was made from.</summary>
    public bool IsCurrent(TranslatedRegion region) => Array.TrueForAll(region.Words, w => *(uint*)(_cpu->Window + w.Pc) == w.Word);

    private void EmitBlock(GuestBlock block, ulong following)
    {
        Label head = _labels[block.Pc];
        _asm.Label(ref head);
        _labels[block.Pc] = head;
        _at = new SitePoint(block.Pc, block.Instructions.Length);
        _code.Forget();
        EmitTick(block);
        for (int i = 0; i < block.Instructions.Length; i++)
        {
            _code.Begin(new ArraySegment<GuestInstruction>(block.Instructions)[(i + 1)..]);
            if (i + 1 < block.Instructions.Length && AluEmitter.TryEmitIndex(_code, block.Instructions[i], block.Instructions[i + 1]))
            {
                i++;
            }
            else
            {
                EmitInstruction(block.Instructions[i], following);
            }

            _at = new SitePoint(block.Pc + ((ulong)i + 1) * 4, block.Instructions.Length - i - 1);
        }

        if (!block.Instructions[^1].EndsBlock && block.End != following)
        {
            EmitExit(block.End);
        }
    }

    /// <summary>
    /// The timer: pays for the whole block, or leaves before it. This is also how a guest that loops for ever is stopped.
    /// </summary>
    private void EmitTick(GuestBlock block)
    {
        _asm.mov(ecx, block.Instructions.Length);
        EmitSite(GuestOps.Tick, () => FastBackend.Tick(_asm));
        _asm.js(Rarely(() =>
        {
            _asm.mov(eax, (uint)block.Pc);
            _asm.jmp(_stubs.OutOfTicks.Value);
        }));
    }

    private void EmitInstruction(GuestInstruction instruction, ulong following)
    {
        switch (instruction.Op)
        {
            case Op.Jal:
                EmitJal(instruction, following);
                break;
            case Op.Jalr:
                EmitJalr(instruction);
                break;
            case >= Op.Beq and <= Op.Bgeu:
                EmitBranch(instruction, following);
                break;
            case >= Op.Lb and <= Op.Sd:
                EmitAccess(instruction);
                break;
            case Op.Fence:
                break;
            case Op.FenceI:
                _asm.mov(eax, (uint)_at.Pc + 4);
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
                MulDivEmitter.Emit(_code, instruction);
                break;
            default:
                AluEmitter.Emit(_code, instruction, _at.Pc);
                break;
        }
    }

    private void EmitAccess(GuestInstruction instruction)
    {
        if (!instruction.IsStore)
        {
            _code.ReadSum(Register.RDX, instruction.Rs1, instruction.Imm);
        }
        else if (_code.Read(instruction.Rs1) != Register.RAX)
        {
            _code.Read(Register.RAX, instruction.Rs2);
            _code.Claim(Register.RAX);
            _code.ReadSum(Register.RDX, instruction.Rs1, instruction.Imm);
        }
        else
        {
            _code.ReadSum(Register.RCX, instruction.Rs1, instruction.Imm);
            _code.Read(Register.RAX, instruction.Rs2);
            _asm.mov(rdx, rcx);
        }

        _code.Claim(Register.RAX, Register.RDX); // any backend may destroy them
        _asm.mov(ecx, edx);
        EmitSite(GuestOps.Access(instruction.Op), () => FastBackend.Access(_asm, instruction.Op));
        if (instruction.IsLoad)
        {
            _code.Write(instruction.Rd, Register.RAX, isWord: instruction.Op is not (Op.Ld or Op.Lwu));
        }
    }

    /// <summary>Emits a site, or what always stands there if nothing shall be patched and there is such a thing.</summary>
    private void EmitSite(OpSlot slot, Action? always = null)
    {
        if (!_patchable && always is not null)
        {
            always();
            return;
        }

        _sites.Emit(_asm, slot, GuestOps.Budget, slot == GuestOps.Tick ? GuestOps.TickClobbers : GuestOps.Clobbers, GuestOps.Placement);
        _points.Add(_at);
    }

    private void EmitBranch(GuestInstruction instruction, ulong following)
    {
        _code.Compare(instruction.Rs1, instruction.Rs2);
        Label taken = LabelOf(_at.Pc + (ulong)instruction.Imm);
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

        EmitGoto(_at.Pc + 4, following);
    }

    private void EmitJal(GuestInstruction instruction, ulong following)
    {
        ulong target = _at.Pc + (ulong)instruction.Imm;
        if ((target & 3) == 0)
        {
            _code.WriteConstant(instruction.Rd, _at.Pc + 4);
        }

        EmitGoto(target, following);
    }

    /// <summary>
    /// To an address known only now: the word's number, turned right by two, is its index in the links, and beyond all of them where the
    /// address is no multiple of four.
    /// </summary>
    private void EmitJalr(GuestInstruction instruction)
    {
        _code.ReadSum(Register.RCX, instruction.Rs1, instruction.Imm);
        _asm.sub(rcx, __qword_ptr[rbp + CpuLayout.CodeStart]);
        _asm.ror(rcx, 2);
        _asm.cmp(rcx, __qword_ptr[rbp + CpuLayout.CodeWords]);
        _asm.jae(Rarely(() =>
        {
            Label aligned = _asm.CreateLabel();
            _asm.rol(rcx, 2);
            _asm.add(rcx, __qword_ptr[rbp + CpuLayout.CodeStart]);
            _asm.and(rcx, -2); // the lowest bit does not count
            _asm.test(cl, 2);
            _asm.jz(aligned);
            EmitSite(GuestOps.FetchMisaligned);
            _asm.Label(ref aligned);
            _code.WriteConstant(instruction.Rd, _at.Pc + 4);
            _asm.mov(rax, rcx);
            _asm.jmp(_stubs.Untranslated.Value);
        }));
        _code.WriteConstant(instruction.Rd, _at.Pc + 4);
        _asm.jmp(__qword_ptr[rbp + rcx * 8 + CpuLayout.Links]);
    }

    /// <summary>Goes on at a known guest address, if that does not come next anyway.</summary>
    private void EmitGoto(ulong target, ulong following)
    {
        if (_labels.TryGetValue(target, out Label label))
        {
            if (target != following)
            {
                _asm.jmp(label);
            }
        }
        else
        {
            EmitExit(target);
        }
    }

    private Label LabelOf(ulong target) => _labels.TryGetValue(target, out Label label) ? label : Rarely(() => EmitExit(target));

    private Label Rarely(Action emit)
    {
        Label label = _asm.CreateLabel();
        _rare.Add((_at, () =>
        {
            _asm.Label(ref label);
            emit();
        }
        ));
        return label;
    }

    /// <summary>Leaves the region for a known guest address, through its link.</summary>
    private void EmitExit(ulong target)
    {
        ulong word = (target - _cpu->CodeStart) / 4;
        if ((target & 3) != 0)
        {
            EmitSite(GuestOps.FetchMisaligned);
        }
        else if (word < _cpu->CodeWords)
        {
            _asm.mov(ecx, (int)word);
            _asm.jmp(__qword_ptr[rbp + (int)word * 8 + CpuLayout.Links]);
        }
        else
        {
            _asm.mov(rax, target);
            _asm.jmp(_stubs.Untranslated.Value);
        }
    }
}
