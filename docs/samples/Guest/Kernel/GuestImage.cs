using System.Buffers.Binary;
using System.Text;
using PvGuest.Machine;
using PvPatch;
using PvPatch.Images;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;
using static PvGuest.Kernel.GuestMemory;

namespace PvGuest.Kernel;

/// <summary>
/// The guest as a file would hold it: code, the table of its sites, its functions by name. One image serves every machine; what differs is
/// the table of operations it starts with, and what is patched.
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
        WriteGate(memory, Interrupts.PageFaultVector, Functions["page_fault"].Value);
        WriteGate(memory, Interrupts.TimerVector, Functions["timer"].Value);
        WriteGate(memory, Interrupts.SystemCallVector, Functions["system_call"].Value);
        (ulong Address, ulong Value)[] variables =
        [
            (Current, GuestMemory.Task(0)), (NextFrame, Frames), (NextTable, Tables), (ConsoleNext, ConsoleText),
            (ExitKinds, (ulong)exitKinds), (Ticks, (ulong)ticks),
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

/// <summary>Where what is in the guest's memory; all of it below 8 MiB, at the same addresses for 32 and 64 bits.</summary>
internal static class GuestMemory
{
    public const int Size = 0x800000;
    public const ulong Text = 0x100000;
    public const int TextSize = 0x10000;
    public const ulong Ops = 0x120000; // the table of operations
    public const ulong Addresses = 0x128000; // addresses of functions that code asks for
    public const ulong Texts = 0x129000;
    public const ulong Idt = 0x12a000;

    /// <summary>The kernel's own variables, a word each.</summary>
    public const ulong Data = 0x130000;
    public const ulong Jiffies = Data;
    public const ulong InInterrupt = Data + 0x08;
    public const ulong LockWord = Data + 0x10;
    public const ulong Current = Data + 0x18;
    public const ulong NextFrame = Data + 0x20;
    public const ulong NextTable = Data + 0x28;
    public const ulong LastClock = Data + 0x30;
    public const ulong ClockSteppedBack = Data + 0x38;
    public const ulong Switches = Data + 0x40;
    public const ulong UserCalls = Data + 0x48;
    public const ulong CurrentMode = Data + 0x50;
    public const ulong ConsoleNext = Data + 0x58;
    public const ulong Running = Data + 0x60;
    public const ulong Faults = Data + 0x68;
    public const ulong ClockEntry = Data + 0x70; // address of the page-table entry that the timer writes
    public const ulong ExitKinds = Data + 0x78; // how many ways to user mode this machine has
    public const ulong Ticks = Data + 0x80; // how many ticks there will be
    public const ulong Counter = Data + 0x88; // what the lock is for
    public const ulong StackPointer0 = Data + 0x90; // the stack for entries from user mode: the task state segment's word
    public const ulong TlsDescriptor = Data + 0x98;
    public const ulong Digests = Data + 0x100;

    public const ulong Tasks = Data + 0x400;
    public const int TaskSize = 64;
    public const int TaskCount = 4;
    public const int TaskSp = 0;
    public const int TaskPgd = 8;
    public const int TaskDone = 16;
    public const int TaskUserReturn = 24; // the kernel's stack pointer while the task is in user mode
    public const int TaskTls = 32;
    public const int TaskNumber = 40;
    public const int TaskStack = 48;
    public const int TaskEntryStack = 56;

    /// <summary>Memory shared with the hypervisor; base of gs in 64-bit code.</summary>
    public const ulong Shared = 0x140000;
    public const int SavedUserStack = 24; // at gs
    public const ulong HypercallPage = 0x148000;
    public const ulong Rom = 0x150000;
    public const ulong Stacks = 0x160000;
    public const ulong UserStack = 0x16f000;
    public const ulong ConsoleText = 0x170000;
    public const ulong Tables = 0x200000; // page tables, none of which anything else lies in
    public const int TablesSize = 0x40000;
    public const ulong Frames = 0x300000;
    public const ulong ClockFrames = 0x700000;

    /// <summary>The pages that a task has in its own address space, and the one that the timer maps behind them.</summary>
    public const ulong Window = 0x40000000;
    public const int Pages = 32;

    public const int UserCode = 0x33; // selectors with ring 3
    public const int UserData = 0x2b;
    public const int KernelCode = 0x10;
    public const int KernelData = 0x18;
    public const int InterruptFlag = 0x200;

    public const int PresentBit = 1;
    public const int WritableBit = 2;
    public const int PageBits = 0x67; // present, writable, user, accessed, dirty

    public static ulong Task(int number) => Tasks + (ulong)(number * TaskSize);

    public static ulong ReadWord(ReadOnlySpan<byte> memory, ulong address, int word) => word == 8
        ? BinaryPrimitives.ReadUInt64LittleEndian(memory[(int)address..])
        : BinaryPrimitives.ReadUInt32LittleEndian(memory[(int)address..]);

    public static void WriteWord(Span<byte> memory, ulong address, ulong value, int word)
    {
        if (word == 8)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(memory[(int)address..], value);
        }
        else
        {
            BinaryPrimitives.WriteUInt32LittleEndian(memory[(int)address..], (uint)value);
        }
    }
}
