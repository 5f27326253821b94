using System.Buffers.Binary;
using System.Text;
using Guest.Machine;
using PvPatch;
using PvPatch.Images;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;
using static Guest.Kernel.GuestMemory;

namespace Guest.Kernel;

/// <summary>
/// The guest as a file would hold it: code, the table of its sites, its functions by name. One image serves every machine; what differs is the
/// table of operations it starts with, and what is patched.
/// </summary>
internal sealed class GuestImage(int bitness, byte[] code, string texts)
{
    public int Bitness => bitness;

    public int Word => bitness / 8;

    public int Length => code.Length;

    public required SiteTable Sites { get; init; }

    public required IReadOnlyDictionary<string, VirtualAddress> Functions { get; init; }

    public required IReadOnlyList<VirtualAddress> Addresses { get; init; }

    /// <summary>The functions as the standard backends look for them.</summary>
    public SlotTargets Targets => new(name => Functions.TryGetValue(name, out VirtualAddress address) ? address : null);

    /// <summary>A fresh copy of the code.</summary>
    public CodeImage Copy()
    {
        byte[] copy = new byte[TextSize];
        copy.AsSpan().Fill(0xcc); // int3
        code.CopyTo(copy, 0);
        return new CodeImage(Text, copy, bitness);
    }

    /// <summary>Plans all sites for a backend.</summary>
    public PatchPlan Plan(Backend backend, CodeImage image) =>
        new PatchPlanner().Plan(image, Sites, backend, new PlanOptions { OpsTableAddress = Ops });

    /// <summary>Fills a machine's memory: code, texts, the operations of a backend, and what a boot loader leaves behind.</summary>
    public void Load(Span<byte> memory, CodeImage text, Backend backend, int exitKinds, int ticks)
    {
        text.Segments[0].Bytes.Span.CopyTo(memory[(int)Text..]);
        Encoding.ASCII.GetBytes(texts, memory[(int)Texts..]);
        for (int i = 0; i < Addresses.Count; i++)
        {
            WriteWord(memory, GuestMemory.Addresses + (ulong)(i * Word), Addresses[i].Value, Word);
        }

        // What each slot holds before sites are patched, and where those sites lead that are not.
        foreach (OpSlot slot in backend.Layout.Slots)
        {
            WriteWord(memory, Ops + (ulong)(slot.Index * Word), FunctionOf(backend[slot.Index]).Value, Word);
        }

        // What lidt takes: limit and base. The gates lie behind it.
        BinaryPrimitives.WriteUInt16LittleEndian(memory[(int)Idt..], 0xfff);
        WriteWord(memory, Idt + 2, Idt + 16, Word);
        WriteGate(memory, 14, Functions["page_fault"].Value);
        WriteGate(memory, GuestMonitor.TimerVector, Functions["timer"].Value);
        WriteGate(memory, GuestMonitor.SystemCallVector, Functions["system_call"].Value);
        (ulong Address, ulong Value)[] variables =
        [
            (Current, GuestMemory.Task(0)), (NextFrame, Frames), (NextTable, Tables), (ConsoleNext, GuestMemory.Console), (ExitKinds, (ulong)exitKinds),
            (Ticks, (ulong)ticks),
        ];
        foreach ((ulong address, ulong value) in variables)
        {
            WriteWord(memory, address, value, Word);
        }

        for (int i = 0; i < TaskCount; i++)
        {
            WriteWord(memory, GuestMemory.Task(i) + TaskTls, 0x00c0f300_0000ffff & (Word == 8 ? ulong.MaxValue : uint.MaxValue), Word);
            WriteWord(memory, GuestMemory.Task(i) + TaskNumber, (ulong)i, Word);
            WriteWord(memory, GuestMemory.Task(i) + TaskStack, Stacks + (ulong)((i + 1) * 0x1000), Word);
            WriteWord(memory, GuestMemory.Task(i) + TaskEntryStack, Stacks + (ulong)((i + 8) * 0x1000), Word);
        }
    }

    /// <summary>A descriptor of the interrupt table: an interrupt gate of ring 0, 16 bytes in 64-bit mode, 8 in 32-bit mode.</summary>
    private void WriteGate(Span<byte> memory, int vector, ulong handler)
    {
        Span<byte> gate = memory.Slice((int)Idt + 16 + (vector * Word * 2), Word * 2);
        BinaryPrimitives.WriteUInt16LittleEndian(gate, (ushort)handler);
        BinaryPrimitives.WriteUInt16LittleEndian(gate[2..], KernelCode);
        gate[5] = 0x8e; // present, ring 0, interrupt gate
        BinaryPrimitives.WriteUInt16LittleEndian(gate[6..], (ushort)(handler >> 16));
    }

    private VirtualAddress FunctionOf(Operation operation) => operation switch
    {
        { Target: VirtualAddress target } => target,
        { Kind: OperationKind.Nop } => Functions["nop_func"],
        { Kind: OperationKind.Identity32 or OperationKind.Identity64 } => Functions["_paravirt_ident_64"],
        _ => Functions["bug"],
    };
}
