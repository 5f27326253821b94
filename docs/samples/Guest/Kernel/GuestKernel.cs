using Iced.Intel;
using PvGuest.Hypervisors;
using static Iced.Intel.AssemblerRegisters;
using static PvGuest.Kernel.GuestMemory;

namespace PvGuest.Kernel;

/// <summary>
/// The guest's kernel: it boots, forks three tasks whose pages are shared until they are written to, runs them in turn, in kernel and in
/// user mode, while a timer interrupts, and prints what came of it. All that a hypervisor could want to know goes through a site.
/// </summary>
internal static class GuestKernel
{
    public const int Steps = 10;

    /// <summary>Assembles the kernel with the functions of every machine it may run on.</summary>
    public static GuestImage Assemble(int bitness)
    {
        var a = new GuestAssembler(bitness);
        WriteStart(a);
        WriteSchedule(a);
        WriteTask(a);
        Entries.Write(a);
        WritePrint(a);
        AddressSpaces.Write(a);
        Native.WriteFunctions(a);
        XenFunctions.Write(a);
        Kvm.WriteFunctions(a);
        if (!a.IsWide)
        {
            Lguest.WriteFunctions(a);
            Vmi.WriteFunctions(a);
        }

        return a.Finish();
    }

    private static void WriteStart(GuestAssembler a)
    {
        a.Function("start");
        a.Set(a.A0, Idt);
        a.Site("cpu.load_idt");
        a.Site("cpu.clts");
        a.Site("cpu.wbinvd");
        a.Site("cpu.read_tsc");
        a.Store(LastClock, a.Ret);
        a.Set(a.A0, GuestMemory.Task(0));
        a.Call("create_address_space");
        a.Call("map_window");
        a.Load(a.A0, GuestMemory.Task(0) + TaskPgd);
        a.Site("mmu.write_cr3");
        a.Load(a.A0, GuestMemory.Task(0) + TaskEntryStack);
        a.Site("cpu.load_sp0");
        a.Site("irq.irq_enable");
        for (int i = 1; i < TaskCount; i++)
        {
            a.Set(a.A0, GuestMemory.Task(i));
            a.Call("fork");
        }

        a.Function("start.run");
        a.Call("schedule");
        a.Do(Alu.Cmp, Running, 0);
        a.JumpIfNot("start.run");

        // Wait for the ticks that are still to come. Looking and halting with interrupts off between: else the last one may be missed.
        a.Function("start.wait");
        a.Site("irq.irq_disable");
        a.Load(a.T, Ticks);
        a.Load(a.Ret, Jiffies);
        a.Do(Alu.Cmp, a.Ret, a.T);
        Label done = a.Asm.CreateLabel();
        a.Asm.je(done);
        a.Site("irq.safe_halt");
        a.Jump("start.wait");
        a.Bind(ref done);
        a.Call("print");
        a.Site("irq.halt");
        a.Asm.ud2();

        // A hypervisor's answer that can't be: nothing sensible is left to do. The monitor sees it and says so.
        a.Function("panic");
        a.Asm.ud2();

        // Sites of operations that a machine does not have lead here until they are patched.
        a.Function("bug");
        a.Asm.ud2();
    }

    private static void WriteSchedule(GuestAssembler a)
    {
        // The next task that is not done, by turns; nothing where there is no other.
        a.Enter("schedule");
        a.Set(a.A0, 0);
        a.Site("lock.vcpu_is_preempted");
        a.Load(a.S0, Current);
        a.Move(a.S1, a.S0);
        a.Function("schedule.next");
        a.Do(Alu.Add, a.S1, TaskSize);
        Label inside = a.Asm.CreateLabel();
        Label found = a.Asm.CreateLabel();
        a.Do(Alu.Cmp, a.S1, (int)GuestMemory.Task(TaskCount));
        a.Asm.jne(inside);
        a.Set(a.S1, Tasks);
        a.Bind(ref inside);
        a.Load(a.Ret, a.S1, TaskDone);
        a.Do(Alu.Cmp, a.Ret, 0);
        a.JumpIfNot("schedule.next");
        a.Do(Alu.Cmp, a.S1, a.S0);
        Label stay = a.Asm.CreateLabel();
        a.Asm.je(stay);

        a.Site("irq.save_fl");
        a.Push(a.Ret);
        a.Site("irq.irq_disable");
        a.Function("switch"); // here the context switch begins
        a.Move(a.A0, a.S0);
        a.Site("cpu.start_context_switch");
        a.Load(a.A0, a.S1, TaskPgd);
        a.Site("mmu.write_cr3");
        a.Load(a.A0, a.S1, TaskEntryStack);
        a.Site("cpu.load_sp0");
        a.Move(a.A0, a.S1);
        a.Site("cpu.load_tls");
        a.Store(a.S0, TaskSp, a.Sp);
        a.Store(Current, a.S1);
        a.Load(a.Sp, a.S1, TaskSp); // from here on it is the next task
        a.Do(Alu.Add, Switches, 1);
        a.Move(a.A0, a.S1);
        a.Site("cpu.end_context_switch");
        a.Function("switch.end");
        a.Pop(a.A0);
        a.Site("irq.restore_fl");
        a.Bind(ref stay);
        a.Leave();
    }

    private static void WriteTask(GuestAssembler a)
    {
        a.Function("task");
        a.Load(a.S0, Current);
        a.Set(a.S1, 0);
        a.Function("task.step");

        // What the timer counts too, so under the lock, and the lock with interrupts off.
        a.Site("irq.save_fl");
        a.Push(a.Ret);
        a.Site("irq.irq_disable");
        a.Call("lock");
        a.Load(a.Ret, a.S0, TaskNumber);
        a.Load(a.T, Counter);
        a.Do(Alu.Add, a.T, a.Ret);
        a.Store(Counter, a.T);
        a.Set(a.A0, LockWord);
        a.Site("lock.queued_spin_unlock");
        a.Pop(a.A0);
        a.Site("irq.restore_fl");

        // One of its own pages, another one each time: page (5 * step + 3 * number) % 32. The first store to a page faults.
        a.Move(a.S2, a.S1);
        a.ShiftLeft(a.S2, 2);
        a.Do(Alu.Add, a.S2, a.S1);
        a.Load(a.T, a.S0, TaskNumber);
        for (int i = 0; i < 3; i++)
        {
            a.Do(Alu.Add, a.S2, a.T);
        }

        a.Do(Alu.And, a.S2, Pages - 1);
        a.ShiftLeft(a.S2, 12);
        a.Do(Alu.Add, a.S2, (int)Window);
        a.Load32(a.Ret, a.S2);
        a.ShiftLeft(a.Ret, 4);
        a.Do(Alu.Add, a.Ret, a.T);
        a.Do(Alu.Add, a.Ret, a.S1);
        a.Store32(a.S2, 0, a.Ret);

        a.Move(a.A0, a.S1);
        a.Call("to_user");
        a.Call("schedule");
        a.Do(Alu.Add, a.S1, 1);
        a.Do(Alu.Cmp, a.S1, Steps);
        a.JumpIfNot("task.step");

        // What the task sees of its memory, in one number.
        a.Set(a.S1, Window);
        a.Set(a.S2, 0);
        a.Function("task.digest");
        a.Asm.AddInstruction(Instruction.Create(
            Code.Imul_r32_rm32_imm32, a.S2.GetFullRegister32(), a.S2.GetFullRegister32(), 31));
        a.Load32(a.Ret, a.S1);
        a.Asm.AddInstruction(Instruction.Create(Code.Add_r32_rm32, a.S2.GetFullRegister32(), a.Ret.GetFullRegister32()));
        a.Do(Alu.Add, a.S1, 0x1000);
        a.Do(Alu.Cmp, a.S1, (int)Window + (Pages * 0x1000));
        a.JumpIfNot("task.digest");
        a.Load(a.T, a.S0, TaskNumber);
        a.ShiftLeft(a.T, 3);
        a.Store32(a.T, (int)Digests, a.S2);
        a.StoreNumber(a.S0, TaskDone, 1);
        a.Do(Alu.Sub, Running, 1);
        a.Function("task.gone");
        a.Call("schedule");
        a.Jump("task.gone");
    }

    private static void WritePrint(GuestAssembler a)
    {
        (string Text, ulong Address)[] lines =
        [
            ("task 1 reads  ", Digests + 8), ("task 2 reads  ", Digests + 16), ("task 3 reads  ", Digests + 24),
            ("ticks         ", Jiffies), ("switches      ", Switches), ("page faults   ", Faults), ("system calls  ", UserCalls),
            ("counted       ", Counter), ("clock errors  ", ClockSteppedBack),
        ];
        a.Enter("print");
        foreach ((string text, ulong address) in lines)
        {
            a.SetText(a.A0, text);
            a.Load32(a.A1, Register.None, (int)address);
            a.Call("print_line");
        }

        a.Leave();

        // A text and a number of 32 bits in hexadecimal, written where the monitor reads when the guest has ended.
        a.Enter("print_line");
        a.Move(a.S0, a.A0);
        a.Move(a.S1, a.A1);
        a.Load(a.S2, ConsoleNext);
        a.Function("print_line.text");
        a.Asm.AddInstruction(Instruction.Create(Code.Movzx_r32_rm8, Register.EAX, a.At(a.S0, 0)));
        Label number = a.Asm.CreateLabel();
        a.Asm.test(eax, eax);
        a.Asm.je(number);
        a.Asm.AddInstruction(Instruction.Create(Code.Mov_rm8_r8, a.At(a.S2, 0), Register.AL));
        a.Do(Alu.Add, a.S0, 1);
        a.Do(Alu.Add, a.S2, 1);
        a.Jump("print_line.text");
        a.Bind(ref number);
        a.Set(a.S3, 8);
        a.Function("print_line.digit");
        a.Asm.AddInstruction(Instruction.Create(Code.Rol_rm32_imm8, a.S1.GetFullRegister32(), 4));
        a.Asm.AddInstruction(Instruction.Create(Code.Mov_r32_rm32, Register.EAX, a.S1.GetFullRegister32()));
        a.Asm.and(eax, 15);
        a.Asm.add(eax, (int)'0');
        a.Asm.cmp(eax, '9' + 1);
        Label digit = a.Asm.CreateLabel();
        a.Asm.jb(digit);
        a.Asm.add(eax, 'a' - '9' - 1);
        a.Bind(ref digit);
        a.Asm.AddInstruction(Instruction.Create(Code.Mov_rm8_r8, a.At(a.S2, 0), Register.AL));
        a.Do(Alu.Add, a.S2, 1);
        a.Do(Alu.Sub, a.S3, 1);
        a.JumpIfNot("print_line.digit");
        a.Asm.AddInstruction(Instruction.Create(Code.Mov_rm8_imm8, a.At(a.S2, 0), '\n'));
        a.Do(Alu.Add, a.S2, 1);
        a.Store(ConsoleNext, a.S2);
        a.Leave();
    }
}
