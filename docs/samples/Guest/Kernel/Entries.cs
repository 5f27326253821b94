using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;
using static PvGuest.Kernel.GuestMemory;

namespace PvGuest.Kernel;

/// <summary>
/// In and out of the kernel: to user mode by each way the processor has, back by a system call, and the timer's interrupt, which comes
/// anywhere.
/// </summary>
internal static class Entries
{
    public static void Write(GuestAssembler a)
    {
        WriteUserMode(a);
        WriteTimer(a);
    }

    private static void WriteUserMode(GuestAssembler a)
    {
        // To user mode and back by a system call. The step says by which way; a machine may have only the first.
        a.Enter("to_user");
        a.Move(a.S1, a.A0);
        a.Load(a.T, ExitKinds);
        a.Function("to_user.kind");
        Label chosen = a.Asm.CreateLabel();
        a.Do(Alu.Cmp, a.S1, a.T);
        a.Asm.jb(chosen);
        a.Do(Alu.Sub, a.S1, a.T);
        a.Jump("to_user.kind");
        a.Bind(ref chosen);
        a.Site("irq.irq_disable");
        a.Load(a.S0, Current);
        a.Store(a.S0, TaskUserReturn, a.Sp);
        string[] ways = a.IsWide ? ["sysexit", "sysret64", "sysret32", "syscall_ret"] : ["sysexit"];
        for (int i = 0; i < ways.Length; i++)
        {
            Label other = a.Asm.CreateLabel();
            a.Do(Alu.Cmp, a.S1, i + 1);
            a.Asm.jne(other);
            WriteExit(a, ways[i]);
            a.Bind(ref other);
        }

        a.PushNumber(UserData);
        a.PushNumber((int)UserStack);
        a.PushNumber(InterruptFlag | 2);
        a.PushNumber(UserCode);
        a.SetFunction(a.Ret, "user");
        a.Push(a.Ret);
        WriteSwapGs(a);
        a.Site("cpu.iret");

        a.Function("user");
        a.Do(Alu.Add, UserCalls, 1);
        if (a.IsWide)
        {
            a.Asm.syscall(); // 0f 05
        }
        else
        {
            a.Asm.@int(0x80); // cd 80
        }

        a.Asm.ud2();

        // A system call: back to where to_user was left.
        a.Function("system_call");
        WriteSwapGs(a);
        a.Load(a.T, Current);
        a.Load(a.Sp, a.T, TaskUserReturn);
        a.Site("irq.irq_enable");
        a.Leave();
    }

    private static void WriteExit(GuestAssembler a, string way)
    {
        // sysexit takes the instruction pointer from edx and the stack pointer from ecx, sysret takes them from rcx and as it is.
        a.SetFunction(way == "sysexit" ? a.A2 : a.T, "user");
        if (way == "sysexit")
        {
            if (a.IsWide)
            {
                a.Asm.mov(ecx, (int)UserStack);
            }
            else
            {
                a.Asm.mov(edx, ecx);
                a.Asm.mov(ecx, (int)UserStack);
            }

            a.Site("cpu.irq_enable_sysexit");
            return;
        }

        a.Asm.mov(r11d, InterruptFlag | 2);
        if (way == "syscall_ret")
        {
            a.StoreNumber(Shared + SavedUserStack, (int)UserStack);
            a.Site("cpu.irq_enable_syscall_ret");
            return;
        }

        a.Asm.mov(esp, (int)UserStack);
        a.Site(way == "sysret64" ? "cpu.usergs_sysret64" : "cpu.usergs_sysret32");
    }

    private static void WriteTimer(GuestAssembler a)
    {
        a.Function("timer");
        WriteSwapGsOfUser(a);
        WriteScratch(a, isSave: true);
        a.Do(Alu.Add, InInterrupt, 1);
        a.Function("timer.begin"); // from here on no mode is lazy
        a.Call("lock");
        a.Do(Alu.Add, Jiffies, 1);
        a.Do(Alu.Add, Counter, 1);
        a.Site("time.sched_clock");
        a.Load(a.T, LastClock);
        a.Do(Alu.Cmp, a.Ret, a.T);
        Label forward = a.Asm.CreateLabel();
        a.Asm.jae(forward);
        a.Do(Alu.Add, ClockSteppedBack, 1);
        a.Bind(ref forward);
        a.Store(LastClock, a.Ret);

        // A page of the first task that shows another frame after each tick: a page-table entry written in an interrupt, whatever was going
        // on.
        a.Load(a.A0, Jiffies);
        a.Do(Alu.And, a.A0, 3);
        a.ShiftLeft(a.A0, 12);
        a.Do(Alu.Add, a.A0, (int)ClockFrames | PageBits);
        a.Site("mmu.make_pte");
        a.Move(a.A1, a.Ret);
        a.Load(a.A0, ClockEntry);
        a.Site("mmu.set_pte");
        a.Set(a.A0, LockWord);
        a.Site("lock.queued_spin_unlock");
        a.Function("timer.end");
        a.Do(Alu.Sub, InInterrupt, 1);
        WriteScratch(a, isSave: false);
        WriteSwapGsOfUser(a);
        a.Site("cpu.iret");

        a.Function("lock");
        a.Set(a.T, 1);
        a.Asm.xor(eax, eax);
        a.Asm.@lock.cmpxchg(__dword_ptr[LockWord], ecx); // f0 0f b1
        a.JumpIfNot("lock.slow");
        a.Asm.ret();
        a.Function("lock.slow");
        a.Set(a.A0, LockWord);
        a.Site("lock.queued_spin_lock_slowpath");
        a.Asm.ret();
    }

    /// <summary>Where an interrupt comes from user mode, gs is the user's. The frame's code selector tells.</summary>
    private static void WriteSwapGsOfUser(GuestAssembler a)
    {
        if (!a.IsWide)
        {
            return;
        }

        Label kernel = a.Asm.CreateLabel();
        a.Asm.test(__byte_ptr[rsp + 8], 3);
        a.Asm.je(kernel);
        a.Site("cpu.swapgs");
        a.Bind(ref kernel);
    }

    private static void WriteSwapGs(GuestAssembler a)
    {
        if (a.IsWide)
        {
            a.Site("cpu.swapgs");
        }
    }

    /// <summary>All that calls may destroy, which is what an interrupted function has not saved.</summary>
    internal static void WriteScratch(GuestAssembler a, bool isSave)
    {
        Register[] scratch = a.IsWide
            ? [Register.RAX, Register.RCX, Register.RDX, Register.RSI, Register.RDI, Register.R8, Register.R9, Register.R10, Register.R11]
            : [Register.EAX, Register.ECX, Register.EDX];
        foreach (Register register in isSave ? scratch : scratch.Reverse())
        {
            if (isSave)
            {
                a.Push(register);
            }
            else
            {
                a.Pop(register);
            }
        }
    }
}
