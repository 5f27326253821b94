using Iced.Intel;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tool.Demo;

/// <summary>Assembles the demo's guest. Bytes between its parts are int3, so that an error of one byte shows.</summary>
internal sealed class DemoAssembler(int bitness, VirtualAddress start, VirtualAddress opsTable, OpsLayout layout)
{
    private const int Alignment = 16;
    private const byte Ret = 0xc3;
    private const byte Int3 = 0xcc;

    private readonly List<byte> _code = [];

    private readonly int _word = bitness / 8;

    /// <summary>The bytes assembled so far.</summary>
    public byte[] Bytes => [.. _code];

    private VirtualAddress End => start + _code.Count;

    /// <summary>Adds a site and the return behind it, which a site that does not come back has not.</summary>
    public PatchSite AddSite(DemoSite site)
    {
        OpSlot slot = layout[site.Slot];
        VirtualAddress at = End;
        byte[] call = Assemble(a => WriteOriginal(a, site, slot), at);
        byte[] padding = new byte[site.Budget - call.Length];
        NopStyle.Default(bitness).Fill(padding, bitness);
        _code.AddRange([.. call, .. padding]);
        if (slot.Kind != SlotKind.Jump)
        {
            _code.Add(Ret);
        }

        Align();
        return new PatchSite(at, slot.Index, site.Budget, site.Clobbers, site.Traits);
    }

    /// <summary>Adds the stub of a function.</summary>
    public VirtualAddress AddStub()
    {
        VirtualAddress at = End;
        _code.Add(Ret);
        Align();
        return at;
    }

    /// <summary>Adds room for thunks.</summary>
    public AddressRange AddRoom(int length)
    {
        var room = new AddressRange(End, length);
        _code.AddRange(Enumerable.Repeat(Int3, length));
        return room;
    }

    /// <summary>The address of a slot's word in the ops table.</summary>
    public VirtualAddress AddressOf(OpSlot slot) => opsTable + ((long)slot.Index * _word);

    private void WriteOriginal(Assembler a, DemoSite site, OpSlot slot)
    {
        if (site.Form == DemoForm.ByHand)
        {
            a.clts(); // 0f 06
            return;
        }

        bool jump = slot.Kind == SlotKind.Jump;
        Code code = bitness == 64 ? (jump ? Code.Jmp_rm64 : Code.Call_rm64) : jump ? Code.Jmp_rm32 : Code.Call_rm32;
        a.AddInstruction(Instruction.Create(code, Operand(site.Form, slot)));
    }

    private MemoryOperand Operand(DemoForm form, OpSlot slot)
    {
        VirtualAddress address = AddressOf(slot);
        if (form == DemoForm.Register)
        {
            // ebx or rbx holds the address of the slot's own table: one byte says which slot.
            int distance = (slot.Index - layout.Tables.First(t => t.Name == slot.Table).Slots[0].Index) * _word;
            return new MemoryOperand(bitness == 64 ? Register.RBX : Register.EBX, distance, 1);
        }

        // Iced takes the address itself for a displacement from rip. In 64-bit code without a base register it is extended by sign.
        return bitness == 32 ? new MemoryOperand(Register.None, (long)address.Value, 4)
            : form == DemoForm.Absolute ? new MemoryOperand(Register.None, (long)address.Value, 8)
            : new MemoryOperand(Register.RIP, (long)address.Value, 8);
    }

    private byte[] Assemble(Action<Assembler> write, VirtualAddress at)
    {
        var assembler = new Assembler(bitness);
        write(assembler);
        using var bytes = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(bytes), at.Value);
        return bytes.ToArray();
    }

    private void Align()
    {
        while (_code.Count % Alignment != 0)
        {
            _code.Add(Int3);
        }
    }
}
