using Iced.Intel;
using PvGuest.Kernel;
using static Iced.Intel.AssemblerRegisters;
using static PvGuest.Kernel.GuestMemory;

namespace PvGuest.Hypervisors;

/// <summary>
/// What the guest has in place for Xen. A call is put together in an entry of a multicall, and that is made at once unless calls are put
/// off; updates of page tables that follow each other share an entry.
/// </summary>
internal static class XenFunctions
{
    // vcpu_info: an event is pending, events are masked, the address of the last fault; then the clock's two words.
    public const ulong VcpuInfo = Shared + 0x100;
    public const ulong EventMask = VcpuInfo + 1;
    public const ulong FaultAddress = VcpuInfo + 8;
    public const ulong Time = VcpuInfo + 0x10;

    // The guest's own: the multicall that is being put together, 32 entries of eight words, and the space for page-table updates.
    public const ulong CallEntries = Shared + 0x1000;
    public const ulong Updates = Shared + 0x2000;
    public const ulong EntryCount = Data + 0x200;
    public const ulong UpdateBytes = Data + 0x208;
    public const ulong Root = Data + 0x210;
    public const ulong UserStackPointer = Data + 0x218;
    public const int MostEntries = 32;
    public const int UpdateSpace = 512;
    public const int UpdatePair = 16;

    public const int SetTrapTable = 0;
    public const int MmuUpdate = 1;
    public const int StackSwitch = 3;
    public const int FpuTaskSwitch = 5;
    public const int UpdateDescriptor = 10;
    public const int Multicall = 13;
    public const int ForceEvents = 17; // xen_version: any call will do, events are looked at on the way back
    public const int Iret = 23;
    public const int MmuExtended = 26;
    public const int SchedOp = 29;
    public const int HypercallCount = 64;
    public const int HypercallEntry = 32; // bytes of an entry of the hypercall page

    public const int NewBasePointer = 5;
    public const int FlushTlbLocal = 6;
    public const int InvalidatePageLocal = 7;
    public const int Block = 1;
    public const int Shutdown = 2;

    /// <summary>The guest's functions for Xen.</summary>
    public static void Write(GuestAssembler a)
    {
        XenEvents.Write(a);
        WriteQueue(a);
        WriteQueued(a);
        Hypervisor.WriteLazyModes(
            a, "xen_mc_leave", ["xen_enter_lazy_mmu"], ["xen_leave_lazy_mmu"], "xen_start_context_switch", "xen_end_context_switch");
        Hypervisor.WriteClock(a, "xen_sched_clock", Time);
        string[] levels = a.IsWide ? ["pte", "pmd", "pud", "pgd"] : ["pte", "pgd"];

        // The guest's frames are the machine's here, so what an entry holds and what it means are the same.
        a.Function([.. levels.Select(l => $"xen_make_{l}"), .. levels.Select(l => $"xen_{l}_val")]);
        a.Move(a.Ret, a.A0);
        a.Asm.ret();
        a.Function("xen_dup_mmap");
        a.Asm.ret();
    }

    private static void WriteQueue(GuestAssembler a)
    {
        int shift = a.IsWide ? 6 : 5; // eight words an entry

        // xen_set_pte(entry, value): one more pair for the last call of the multicall if that is an mmu_update, else a new one.
        a.Enter("xen_set_pte", "xen_set_pmd", "xen_set_pud", "xen_set_pgd");
        a.Move(a.S1, a.A0);
        a.Move(a.S2, a.A1);
        WriteMask(a);
        a.Function("xen_set_pte.masked");
        Label newEntry = a.Asm.CreateLabel();
        Label append = a.Asm.CreateLabel();
        Label room = a.Asm.CreateLabel();
        a.Do(Alu.Cmp, UpdateBytes, UpdateSpace - UpdatePair); // the last byte is never used
        a.Asm.jb(room);
        a.Call("xen_mc_flush");
        a.Bind(ref room);
        a.Load(a.T, EntryCount);
        a.Do(Alu.Sub, a.T, 1);
        a.Asm.js(newEntry);
        WriteEntryAddress(a, shift);
        a.Load(a.Ret, a.T);
        a.Do(Alu.Cmp, a.Ret, MmuUpdate);
        a.Asm.je(append);
        a.Bind(ref newEntry);
        WriteNewEntry(a, shift);
        a.StoreNumber(a.T, 0, MmuUpdate);
        a.StoreNumber(a.T, a.Word, 0);
        a.Load(a.Ret, UpdateBytes);
        a.Do(Alu.Add, a.Ret, (int)Updates);
        a.Store(a.T, 2 * a.Word, a.Ret);
        a.StoreNumber(a.T, 3 * a.Word, 0);
        a.Bind(ref append);
        a.Load(a.Ret, a.T, 3 * a.Word);
        a.Do(Alu.Add, a.Ret, 1);
        a.Store(a.T, 3 * a.Word, a.Ret);
        a.Load(a.Ret, UpdateBytes);
        a.Store(a.Ret, (int)Updates, a.S1); // pairs of 64 bits in both; the upper halves are zero from the beginning
        a.Store(a.Ret, (int)Updates + 8, a.S2);
        a.Do(Alu.Add, UpdateBytes, UpdatePair);
        a.Jump("xen_queue.issue");

        // xen_queue(call, argument, argument)
        a.Enter("xen_queue");
        a.Move(a.S0, a.A0);
        a.Move(a.S1, a.A1);
        a.Move(a.S2, a.A2);
        WriteMask(a);
        a.Function("xen_queue.masked");
        WriteNewEntry(a, shift);
        a.Store(a.T, 0, a.S0);
        a.StoreNumber(a.T, a.Word, 0);
        a.Store(a.T, 2 * a.Word, a.S1);
        a.Store(a.T, 3 * a.Word, a.S2);
        a.Function("xen_queue.issue");
        Label now = a.Asm.CreateLabel();
        Label queued = a.Asm.CreateLabel();
        Hypervisor.WriteJumpUnlessLazy(a, now);
        a.Asm.jmp(queued);
        a.Bind(ref now);
        a.Call("xen_mc_flush");
        a.Bind(ref queued);
        WriteUnmask(a);
        a.Leave();

        a.Enter("xen_mc_leave");
        WriteMask(a);
        a.Function("xen_mc_leave.masked");
        a.Call("xen_mc_flush");
        WriteUnmask(a);
        a.Leave();

        // All calls in their order; each must have gone well.
        a.Function("xen_mc_flush");
        Label empty = a.Asm.CreateLabel();
        a.Do(Alu.Cmp, EntryCount, 0);
        a.Asm.je(empty);
        a.Set(a.A0, CallEntries);
        a.Load(a.A1, EntryCount);
        WriteCall(a, Multicall);
        a.Do(Alu.Cmp, a.Ret, 0);
        a.JumpIfNot("panic");
        a.Set(a.T, CallEntries);
        a.Function("xen_mc_flush.result");
        a.Load(a.Ret, a.T, a.Word);
        a.Do(Alu.Cmp, a.Ret, 0);
        a.JumpIfNot("panic");
        a.Do(Alu.Add, a.T, 1 << shift);
        a.Do(Alu.Sub, EntryCount, 1);
        a.JumpIfNot("xen_mc_flush.result");
        a.StoreNumber(UpdateBytes, 0);
        a.Bind(ref empty);
        a.Asm.ret();
    }

    /// <summary>T becomes the address of an entry that is added, behind a flush where there is no room.</summary>
    private static void WriteNewEntry(GuestAssembler a, int shift)
    {
        Label room = a.Asm.CreateLabel();
        a.Do(Alu.Cmp, EntryCount, MostEntries);
        a.Asm.jb(room);
        a.Call("xen_mc_flush");
        a.Bind(ref room);
        a.Load(a.T, EntryCount);
        WriteEntryAddress(a, shift);
        a.Do(Alu.Add, EntryCount, 1);
    }

    private static void WriteEntryAddress(GuestAssembler a, int shift)
    {
        a.ShiftLeft(a.T, shift);
        a.Do(Alu.Add, a.T, (int)CallEntries);
    }

    /// <summary>No event may come between the parts of a call; S3 keeps whether any could before.</summary>
    private static void WriteMask(GuestAssembler a)
    {
        a.LoadByte(a.S3, EventMask);
        a.StoreByte(EventMask, 1);
    }

    private static void WriteUnmask(GuestAssembler a)
    {
        Label done = a.Asm.CreateLabel();
        a.Do(Alu.Cmp, a.S3, 0);
        a.Asm.jne(done);
        a.StoreByte(EventMask, 0);
        a.CompareByte(VcpuInfo, 0);
        a.Asm.je(done);
        a.Call("check_events");
        a.Bind(ref done);
    }

    private static void WriteQueued(GuestAssembler a)
    {
        a.Function("xen_write_cr3");
        a.Store(Root, a.A0);
        WriteExtended(a, NewBasePointer, a.A0);
        a.Function("xen_read_cr3");
        a.Load(a.Ret, Root);
        a.Asm.ret();
        a.Function("xen_flush_tlb");
        WriteExtended(a, FlushTlbLocal, Register.None);
        a.Function("xen_flush_tlb_single");
        WriteExtended(a, InvalidatePageLocal, a.A0);

        // The commands that pin a table are numbered by its level, from 0.
        string[] levels = a.IsWide
            ? ["xen_alloc_pte", "xen_alloc_pmd", "xen_alloc_pud", "xen_pgd_alloc"]
            : ["xen_alloc_pte", "xen_pgd_alloc"];
        for (int level = 0; level < levels.Length; level++)
        {
            a.Function(levels[level]);
            WriteExtended(a, level, a.A1);
        }

        a.Function("xen_load_sp0");
        a.Store(GuestMemory.StackPointer0, a.A0);
        a.Move(a.A2, a.A0);
        a.Set(a.A1, KernelData);
        a.Set(a.A0, StackSwitch);
        a.Jump("xen_queue");
        a.Function("xen_load_tls");
        a.Load(a.A2, a.A0, TaskTls);
        a.Set(a.A1, TlsDescriptor);
        a.Set(a.A0, UpdateDescriptor);
        a.Jump("xen_queue");
        a.Function("xen_clts");
        a.Set(a.A2, 0);
        a.Set(a.A1, 0);
        a.Set(a.A0, FpuTaskSwitch);
        a.Jump("xen_queue");
    }

    private static void WriteExtended(GuestAssembler a, int command, Register argument)
    {
        if (argument == Register.None)
        {
            a.Set(a.A2, 0);
        }
        else
        {
            a.Move(a.A2, argument);
        }

        a.Set(a.A1, (ulong)command);
        a.Set(a.A0, MmuExtended);
        a.Jump("xen_queue");
    }

    /// <summary>
    /// A hypercall of up to two arguments in the registers of a function's. Xen takes them in rdi and rsi, or in ebx and ecx.
    /// </summary>
    public static void WriteCall(GuestAssembler a, int number)
    {
        ulong entry = HypercallPage + (ulong)(number * HypercallEntry);
        if (a.IsWide)
        {
            a.Asm.call(entry);
            return;
        }

        a.Push(Register.EBX);
        a.Asm.mov(ebx, eax);
        a.Asm.mov(ecx, edx);
        a.Asm.call(entry);
        a.Pop(Register.EBX);
    }
}
