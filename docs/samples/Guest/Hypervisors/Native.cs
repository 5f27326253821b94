using Iced.Intel;
using PvGuest.Kernel;
using PvGuest.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using static Iced.Intel.AssemblerRegisters;

namespace PvGuest.Hypervisors;

/// <summary>
/// Bare hardware. Nothing traps; the functions are what a kernel without sites would have had in place, a return behind each. KVM's guests
/// take most of them, and where no backend has anything better, the others' guests do too.
/// </summary>
internal class Native : Hypervisor
{
    public override string Name => "native";

    public override bool InterruptFlag
    {
        get => (Monitor.Cpu[CpuRegister.Flags] & GuestMemory.InterruptFlag) != 0;
        set => Monitor.Cpu[CpuRegister.Flags] = (Monitor.Cpu[CpuRegister.Flags] & ~(ulong)GuestMemory.InterruptFlag)
            | (value ? (ulong)GuestMemory.InterruptFlag : 0);
    }

    public override bool SeesInterruptFlag => true;

    public override Backend CreateBackend(GuestImage image, StandardBackendOptions? options = null) =>
        StandardBackends.Native(StandardLayout.For(image.Bitness), image.Bitness, image.Targets, options?.Native);

    public override Verdict Judge(Special special) =>
        special is Special.Vmcall or Special.Out or Special.InterruptCall ? Verdict.Refuse : Verdict.Execute;

    public override Verdict JudgeTableWrite() => Verdict.Execute;

    public override void SetFaultAddress(ulong address) => Monitor.Cpu[CpuRegister.Cr2] = address;

    /// <summary>The kernel's native functions.</summary>
    public static void WriteFunctions(GuestAssembler a)
    {
        a.Function("nop_func", "__paravirt_pgd_alloc");
        a.Asm.ret();
        a.Function("_paravirt_ident_64", "_paravirt_ident_32");
        a.Move(a.Ret, a.A0);
        a.Asm.ret();

        Function("native_irq_disable", a.Asm.cli);
        Function("native_irq_enable", a.Asm.sti);
        Function("native_save_fl", () =>
        {
            a.Add(Code.Pushfq, Code.Pushfd);
            a.Pop(a.Ret);
        });
        Function("native_restore_fl", () =>
        {
            a.Push(a.A0);
            a.Add(Code.Popfq, Code.Popfd);
        });
        Function("native_clts", a.Asm.clts);
        Function("native_wbinvd", a.Asm.wbinvd);
        Function("native_read_cr2", () => a.Add(Code.Mov_r64_cr, Code.Mov_r32_cr, a.Ret, Register.CR2));
        Function("native_read_cr3", () => a.Add(Code.Mov_r64_cr, Code.Mov_r32_cr, a.Ret, Register.CR3));
        Function("native_write_cr3", () => a.Add(Code.Mov_cr_r64, Code.Mov_cr_r32, Register.CR3, a.A0));
        Function("native_flush_tlb", () =>
        {
            a.Add(Code.Mov_r64_cr, Code.Mov_r32_cr, a.Ret, Register.CR3);
            a.Add(Code.Mov_cr_r64, Code.Mov_cr_r32, Register.CR3, a.Ret);
        });
        Function("native_flush_tlb_single", () => a.Asm.AddInstruction(Instruction.Create(Code.Invlpg_m, a.At(a.A0, 0))));
        Function("native_set_pte", () => a.Store(a.A0, 0, a.A1), "native_set_pmd", "native_set_pud", "native_set_pgd");
        Function("native_load_idt", () => a.Asm.AddInstruction(Instruction.Create(
            a.IsWide ? Code.Lidt_m1664 : Code.Lidt_m1632, a.At(a.A0, 0))));
        Function("native_load_sp0", () => a.Store(GuestMemory.StackPointer0, a.A0));
        Function("native_load_tls", () =>
        {
            a.Load(a.Ret, a.A0, GuestMemory.TaskTls);
            a.Store(GuestMemory.TlsDescriptor, a.Ret);
        });
        Function("native_safe_halt", () =>
        {
            a.Asm.sti();
            a.Asm.hlt();
        });
        Function("native_halt", a.Asm.hlt);
        Function("native_sched_clock", () =>
        {
            a.Asm.rdtsc();
            if (a.IsWide)
            {
                a.ShiftLeft(a.A2, 32);
                a.Do(Alu.Or, a.Ret, a.A2);
            }
        }, "native_read_tsc");
        Function("__raw_callee_save___native_queued_spin_unlock",
            () => a.Asm.AddInstruction(Instruction.Create(Code.Mov_rm8_imm8, a.At(a.A0, 0), 0)));
        Function("__raw_callee_save___native_vcpu_is_preempted", () => a.Asm.xor(eax, eax));

        // Waits until the lock is free, and takes it. With one CPU that would be for ever.
        a.Function("native_queued_spin_lock_slowpath");
        a.Move(a.A1, a.A0);
        a.Function("native_queued_spin_lock_slowpath.again");
        a.Asm.pause();
        a.Set(a.T, 1);
        a.Asm.xor(eax, eax);
        Instruction take = Instruction.Create(Code.Cmpxchg_rm32_r32, a.At(a.A1, 0), Register.ECX);
        take.HasLockPrefix = true;
        a.Asm.AddInstruction(take);
        a.JumpIfNot("native_queued_spin_lock_slowpath.again");
        a.Asm.ret();

        // Jumped to: nothing comes back from these.
        a.Function("native_iret");
        a.Add(Code.Iretq, Code.Iretd);
        a.Function("native_irq_enable_sysexit");
        if (a.IsWide)
        {
            a.Asm.swapgs();
        }

        a.Asm.sti();
        a.Asm.sysexit();
        if (a.IsWide)
        {
            a.Function("native_irq_enable_syscall_ret");
            a.Asm.mov(rsp, __qword_ptr.gs[GuestMemory.SavedUserStack]);
            a.Function("native_usergs_sysret64");
            a.Asm.swapgs();
            a.Asm.sysretq();
            a.Function("native_usergs_sysret32");
            a.Asm.swapgs();
            a.Asm.sysret();
            Function("native_swapgs", a.Asm.swapgs);
        }

        void Function(string name, Action write, params ReadOnlySpan<string> otherNames)
        {
            a.Function([name, .. otherNames]);
            write();
            a.Asm.ret();
        }
    }
}
