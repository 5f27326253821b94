using Iced.Intel;
using PvGuest.Kernel;
using static Iced.Intel.AssemblerRegisters;
using static PvGuest.Hypervisors.XenFunctions;
using static PvGuest.Kernel.GuestMemory;

namespace PvGuest.Hypervisors;

/// <summary>
/// Interrupts of a Xen guest, which are called events: allowed and forbidden by a byte of vcpu_info, looked for by a call where one came
/// meanwhile, and returned from by a call. The ways to user mode are such returns as well.
/// </summary>
internal static class XenEvents
{
    public static void Write(GuestAssembler a)
    {
        WriteInterrupts(a);
        WriteExits(a);
    }

    private static void WriteInterrupts(GuestAssembler a)
    {
        a.Function("xen_irq_disable_direct");
        a.StoreByte(EventMask, 1);
        a.Asm.ret();

        a.Function("xen_save_fl_direct");
        a.CompareByte(EventMask, 0);
        a.Asm.sete(ah);
        a.Asm.add(ah, ah); // IF is bit 9
        a.Asm.ret();

        Label done = a.Asm.CreateLabel();
        a.Function("xen_irq_enable_direct");
        a.StoreByte(EventMask, 0);
        a.CompareByte(VcpuInfo, 0); // unmasked first: what comes between is delivered, what came before is seen here
        a.Asm.je(done);
        a.Call("check_events");
        a.Bind(ref done);
        a.Asm.ret();

        Label masked = a.Asm.CreateLabel();
        a.Function("xen_restore_fl_direct");
        a.Test(a.A0, GuestMemory.InterruptFlag);
        a.Asm.sete(__byte_ptr[EventMask]);
        a.Asm.cmp(__word_ptr[VcpuInfo], 1); // pending and not masked
        a.Asm.jne(masked);
        a.Call("check_events");
        a.Bind(ref masked);
        a.Asm.ret();

        // Keeps every register: it is called where nothing may be destroyed.
        a.Function("check_events");
        Entries.WriteScratch(a, isSave: true);
        WriteCall(a, ForceEvents);
        Entries.WriteScratch(a, isSave: false);
        a.Asm.ret();

        a.Function("xen_read_cr2_direct");
        a.Load(a.Ret, FaultAddress);
        a.Asm.ret();
        a.Function("xen_load_idt");
        WriteCall(a, SetTrapTable);
        a.Asm.ret();
        a.Function("xen_safe_halt");
        a.Set(a.A0, Block);
        WriteCall(a, SchedOp);
        a.Asm.ret();
        a.Function("xen_halt");
        a.Set(a.A0, Shutdown);
        WriteCall(a, SchedOp);
        a.Asm.ret();
    }

    private static void WriteExits(GuestAssembler a)
    {
        // The hypercall destroys rax, and in 64-bit code rcx and r11: they lie above the frame and are the hypervisor's to give back.
        a.Function("xen_iret");
        foreach (Register register in a.IsWide ? (Register[])[Register.RCX, Register.R11, Register.RAX] : [Register.EAX])
        {
            a.Push(register);
        }

        a.Asm.jmp(HypercallPage + (Iret * HypercallEntry));

        // sysexit: instruction pointer in edx, stack pointer in ecx. A frame of them on the stack for entries, which is empty now.
        a.Function("xen_sysexit");
        a.Load(a.Sp, GuestMemory.StackPointer0);
        a.PushNumber(UserData);
        a.Push(a.T);
        a.PushNumber(GuestMemory.InterruptFlag | 2);
        a.PushNumber(UserCode);
        a.Push(a.IsWide ? Register.RDX : Register.EDX);
        a.Jump("xen_iret");
        if (!a.IsWide)
        {
            return;
        }

        // sysret: instruction pointer in rcx, flags in r11, and the stack pointer is the user's already, or saved.
        a.Function("xen_irq_enable_syscall_ret");
        a.Load(a.Sp, Shared + SavedUserStack);
        a.Function("xen_sysret64", "xen_sysret32");
        a.Store(UserStackPointer, a.Sp);
        a.Load(a.Sp, GuestMemory.StackPointer0);
        a.PushNumber(UserData);
        a.PushMemory(UserStackPointer);
        a.Push(Register.R11);
        a.PushNumber(UserCode);
        a.Push(Register.RCX);
        a.Jump("xen_iret");
    }
}
