using System.Text;
using Iced.Intel;
using PvPatch;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;

namespace PvGuest.Kernel;

/// <summary>What two words are put together with.</summary>
internal enum Alu
{
    Add, Or, And, Sub, Xor, Cmp,
}

/// <summary>
/// Writes guest code that is the same text for 32 and 64 bits: a word is a register wide, and registers go by what they are for. Functions
/// have the names that kernels give them; sites are calls and jumps through the table of operations, noted for PvPatch.
/// </summary>
internal sealed class GuestAssembler
{
    private const int CallLength = 6; // call [rip+rel32] or call [a32]

    private readonly Dictionary<string, Label> _functions = new(StringComparer.Ordinal);
    private readonly List<(Label Label, PatchSite Site)> _sites = [];
    private readonly List<string> _addresses = [];
    private readonly StringBuilder _texts = new();
    private readonly bool _wide;

    public GuestAssembler(int bitness)
    {
        Bitness = bitness;
        _wide = bitness == 64;
        Asm = new Assembler(bitness);
        (Ret, A0, A1, A2) = _wide ? (Register.RAX, Register.RDI, Register.RSI, Register.RDX)
            : (Register.EAX, Register.EAX, Register.EDX, Register.ECX);
        (S0, S1, S2, S3) = _wide ? (Register.RBX, Register.RBP, Register.R12, Register.R13)
            : (Register.EBX, Register.EBP, Register.ESI, Register.EDI);
        (T, Sp) = _wide ? (Register.RCX, Register.RSP) : (Register.ECX, Register.ESP);
    }

    public int Bitness { get; }

    /// <summary>Bytes of a word, and of a page-table entry.</summary>
    public int Word => Bitness / 8;

    public bool IsWide => _wide;

    /// <summary>What is the same instruction for both is written with Iced's own assembler.</summary>
    public Assembler Asm { get; }

    /// <summary>Register of the result. In 32-bit code that is also the first argument's.</summary>
    public Register Ret { get; }

    /// <summary>Register of the first argument; <see cref="A1"/> and <see cref="A2"/> of the next two. Calls may destroy them.</summary>
    public Register A0 { get; }

    public Register A1 { get; }

    public Register A2 { get; }

    /// <summary>A register for in between, which calls may destroy; in 32-bit code that of the third argument.</summary>
    public Register T { get; }

    /// <summary>A register that calls keep, as <see cref="S1"/>, <see cref="S2"/> and <see cref="S3"/>.</summary>
    public Register S0 { get; }

    public Register S1 { get; }

    public Register S2 { get; }

    public Register S3 { get; }

    public Register Sp { get; }

    /// <summary>Begins a function; one function may have several names.</summary>
    public void Function(params ReadOnlySpan<string> names)
    {
        foreach (string name in names)
        {
            Label label = LabelOf(name);
            Bind(ref label);
            _functions[name] = label;
        }
    }

    /// <summary>Puts a label here; others may be here too.</summary>
    public void Bind(ref Label label)
    {
        Asm.Label(ref label);
        Asm.zero_bytes(); // an instruction has one label at most; this is none
    }

    public void Call(string function) => Asm.call(LabelOf(function));

    public void Jump(string function) => Asm.jmp(LabelOf(function));

    public void JumpIfNot(string function) => Asm.jne(LabelOf(function));

    /// <summary>Begins a function that keeps the registers <see cref="S0"/> to <see cref="S3"/>; ends with <see cref="Leave"/>.</summary>
    public void Enter(params ReadOnlySpan<string> names)
    {
        Function(names);
        foreach (Register saved in (Register[])[S0, S1, S2, S3])
        {
            Push(saved);
        }
    }

    public void Leave()
    {
        foreach (Register saved in (Register[])[S3, S2, S1, S0])
        {
            Pop(saved);
        }

        Asm.ret();
    }

    /// <summary>
    /// A site: what stands there until it is patched is an indirect call or jump, and nops up to the longest body's length.
    /// </summary>
    public void Site(string slotName)
    {
        OpSlot slot = StandardLayout.For(Bitness)[slotName];
        bool isJump = slot.Kind == SlotKind.Jump;
        Label start = Asm.CreateLabel();
        Bind(ref start);
        ulong word = GuestMemory.Ops + (ulong)(slot.Index * Word);

        // call [rip+rel32]: ff 15 rel32; call [a32]: ff 15 a32; jmp: ff 25. Six bytes.
        Code code = isJump ? Pick(Code.Jmp_rm64, Code.Jmp_rm32) : Pick(Code.Call_rm64, Code.Call_rm32);
        Asm.AddInstruction(Instruction.Create(
            code, new MemoryOperand(_wide ? Register.RIP : Register.None, (long)word, Word)));
        int budget = BudgetOf(slotName);
        byte[] nops = new byte[budget - CallLength];
        if (nops.Length > 0)
        {
            NopStyle.Default(Bitness).Fill(nops, Bitness);
            Asm.db(nops);
        }

        RegisterSet clobbers = isJump ? RegisterSet.All : slot.Convention.DestroyedBy(Bitness);
        _sites.Add((start, new PatchSite(VirtualAddress.Zero, slot.Index, budget, clobbers)));
    }

    public void Move(Register to, Register from)
    {
        if (to != from)
        {
            Asm.AddInstruction(Instruction.Create(Pick(Code.Mov_r64_rm64, Code.Mov_r32_rm32), to, from));
        }
    }

    /// <summary>A number of 32 bits without sign, an address for example.</summary>
    public void Set(Register to, ulong value) => Asm.AddInstruction(Instruction.Create(Code.Mov_r32_imm32, Low(to), (uint)value));

    /// <summary>The address of a function, from a table that the image's loader fills.</summary>
    public void SetFunction(Register to, string function)
    {
        LabelOf(function); // so that one that is not there is found when the code is assembled
        int index = _addresses.IndexOf(function);
        if (index < 0)
        {
            index = _addresses.Count;
            _addresses.Add(function);
        }

        Load(to, GuestMemory.Addresses + (ulong)(index * Word));
    }

    /// <summary>The address of a text, which ends with a zero.</summary>
    public void SetText(Register to, string text)
    {
        Set(to, GuestMemory.Texts + (ulong)_texts.Length);
        _texts.Append(text).Append('\0');
    }

    public void Load(Register to, Register from, int offset = 0) =>
        Asm.AddInstruction(Instruction.Create(Pick(Code.Mov_r64_rm64, Code.Mov_r32_rm32), to, At(from, offset)));

    public void Load(Register to, ulong address) => Load(to, Register.None, (int)address);

    public void Store(Register to, int offset, Register value) =>
        Asm.AddInstruction(Instruction.Create(Pick(Code.Mov_rm64_r64, Code.Mov_rm32_r32), At(to, offset), value));

    public void Store(ulong address, Register value) => Store(Register.None, (int)address, value);

    /// <summary>A store of 32 bits whatever the word is.</summary>
    public void Store32(Register to, int offset, Register value) =>
        Asm.AddInstruction(Instruction.Create(Code.Mov_rm32_r32, At(to, offset), Low(value)));

    public void Load32(Register to, Register from, int offset = 0) =>
        Asm.AddInstruction(Instruction.Create(Code.Mov_r32_rm32, Low(to), At(from, offset)));

    public void StoreNumber(ulong address, int value) => StoreNumber(Register.None, (int)address, value);

    public void StoreNumber(Register to, int offset, int value) =>
        Asm.AddInstruction(Instruction.Create(Pick(Code.Mov_rm64_imm32, Code.Mov_rm32_imm32), At(to, offset), value));

    /// <summary>Stores a byte, or compares one.</summary>
    public void StoreByte(ulong address, int value) =>
        Asm.AddInstruction(Instruction.Create(Code.Mov_rm8_imm8, At(Register.None, (int)address), value));

    public void CompareByte(ulong address, int value) =>
        Asm.AddInstruction(Instruction.Create(Code.Cmp_rm8_imm8, At(Register.None, (int)address), value));

    /// <summary>A byte, extended to the word.</summary>
    public void LoadByte(Register to, ulong address) =>
        Asm.AddInstruction(Instruction.Create(Code.Movzx_r32_rm8, Low(to), At(Register.None, (int)address)));

    public void Do(Alu what, Register to, Register with) => Asm.AddInstruction(Instruction.Create(RegisterForm(what), to, with));

    public void Do(Alu what, Register to, int number) => Asm.AddInstruction(Instruction.Create(NumberForm(what), to, number));

    /// <summary>With a word of memory as the first operand.</summary>
    public void Do(Alu what, ulong address, int number) =>
        Asm.AddInstruction(Instruction.Create(NumberForm(what), At(Register.None, (int)address), number));

    public void ShiftLeft(Register to, int bits) =>
        Asm.AddInstruction(Instruction.Create(Pick(Code.Shl_rm64_imm8, Code.Shl_rm32_imm8), to, bits));

    public void ShiftRight(Register to, int bits) =>
        Asm.AddInstruction(Instruction.Create(Pick(Code.Shr_rm64_imm8, Code.Shr_rm32_imm8), to, bits));

    public void Test(Register value, int bits) =>
        Asm.AddInstruction(Instruction.Create(Pick(Code.Test_rm64_imm32, Code.Test_rm32_imm32), value, bits));

    public void Push(Register value) => Asm.AddInstruction(Instruction.Create(Pick(Code.Push_r64, Code.Push_r32), value));

    public void PushNumber(int value) => Asm.AddInstruction(Instruction.Create(Pick(Code.Pushq_imm32, Code.Pushd_imm32), value));

    public void PushMemory(ulong address) =>
        Asm.AddInstruction(Instruction.Create(Pick(Code.Push_rm64, Code.Push_rm32), At(Register.None, (int)address)));

    public void Pop(Register value) => Asm.AddInstruction(Instruction.Create(Pick(Code.Pop_r64, Code.Pop_r32), value));

    public void Add(Code wide, Code narrow) => Asm.AddInstruction(Instruction.Create(Pick(wide, narrow)));

    public void Add(Code wide, Code narrow, Register first, Register second) =>
        Asm.AddInstruction(Instruction.Create(Pick(wide, narrow), first, second));

    public MemoryOperand At(Register register, int offset) =>
        new(register, offset, register != Register.None && offset == 0 ? 0 : Word);

    /// <summary>Assembles all of it.</summary>
    public GuestImage Finish()
    {
        using var bytes = new MemoryStream();
        AssemblerResult result = Asm.Assemble(
            new StreamCodeWriter(bytes), GuestMemory.Text, BlockEncoderOptions.ReturnNewInstructionOffsets);
        var functions = _functions.ToDictionary(
            f => f.Key, f => new VirtualAddress(result.GetLabelRIP(f.Value)), StringComparer.Ordinal);
        return new GuestImage(Bitness, bytes.ToArray(), _texts.ToString())
        {
            Sites = SiteTable.Create([.. _sites.Select(s => new PatchSite(
                result.GetLabelRIP(s.Label), s.Site.Slot, s.Site.Budget, s.Site.Clobbers))]),
            Functions = functions,
            Addresses = [.. _addresses.Select(a => functions[a])],
        };
    }

    /// <summary>
    /// Room at a site: that of a call, or of the longest body that any backend has for the operation. The interrupt operations' are Xen's
    /// in 64-bit code (9, 14, 25 and 31 bytes) and lguest's (10).
    /// </summary>
    private static int BudgetOf(string slotName) => slotName switch
    {
        "irq.irq_disable" => 10,
        "irq.save_fl" => 14,
        "irq.irq_enable" => 25,
        "irq.restore_fl" => 31,
        "cpu.irq_enable_syscall_ret" => 15,
        _ => CallLength,
    };

    public Label LabelOf(string function)
    {
        if (!_functions.TryGetValue(function, out Label label))
        {
            _functions[function] = label = Asm.CreateLabel(function);
        }

        return label;
    }

    private Code Pick(Code wide, Code narrow) => _wide ? wide : narrow;

    private static Register Low(Register register) => register.GetFullRegister32();

    private Code RegisterForm(Alu what) => what switch
    {
        Alu.Add => Pick(Code.Add_r64_rm64, Code.Add_r32_rm32),
        Alu.Or => Pick(Code.Or_r64_rm64, Code.Or_r32_rm32),
        Alu.And => Pick(Code.And_r64_rm64, Code.And_r32_rm32),
        Alu.Sub => Pick(Code.Sub_r64_rm64, Code.Sub_r32_rm32),
        Alu.Xor => Pick(Code.Xor_r64_rm64, Code.Xor_r32_rm32),
        _ => Pick(Code.Cmp_r64_rm64, Code.Cmp_r32_rm32),
    };

    private Code NumberForm(Alu what) => what switch
    {
        Alu.Add => Pick(Code.Add_rm64_imm32, Code.Add_rm32_imm32),
        Alu.Or => Pick(Code.Or_rm64_imm32, Code.Or_rm32_imm32),
        Alu.And => Pick(Code.And_rm64_imm32, Code.And_rm32_imm32),
        Alu.Sub => Pick(Code.Sub_rm64_imm32, Code.Sub_rm32_imm32),
        Alu.Xor => Pick(Code.Xor_rm64_imm32, Code.Xor_rm32_imm32),
        _ => Pick(Code.Cmp_rm64_imm32, Code.Cmp_rm32_imm32),
    };
}
