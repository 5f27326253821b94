using Iced.Intel;
using PvGuest.Kernel;
using PvGuest.Machine;
using PvPatch.LazyModes;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using static Iced.Intel.AssemblerRegisters;
using static PvGuest.Kernel.GuestMemory;

namespace PvGuest.Hypervisors;

/// <summary>
/// An lguest guest, 32-bit only: a word of shared memory allows interrupts, calls are int 1f, and those that can wait are put in a ring of
/// 64 that the host empties before it does anything else. Numbers of calls are lguest's; arguments are cut down to what is used.
/// </summary>
internal sealed class Lguest : Hypervisor
{
    // lguest_data: IF or nothing, an interrupt is pending, the address of the last fault; then the ring.
    public const ulong LguestData = Shared + 0x200;
    private const ulong IrqEnabled = LguestData;
    private const ulong IrqPending = LguestData + 4;
    private const ulong FaultAddress = LguestData + 8;
    private const ulong Status = Shared + 0x4000;
    private const ulong Ring = Shared + 0x4100;
    private const ulong Next = Data + 0x230;
    private const ulong Root = Data + 0x238;
    private const int RingSize = 64;
    private const int RingEntry = 16;
    private const byte Free = 0xff;

    private const byte Trap = 0x1f;
    private const int FlushAsync = 0;
    private const int Shutdown = 2;
    private const int NewPageTable = 4;
    private const int FlushTlb = 5;
    private const int LoadIdtEntry = 6;
    private const int SetStack = 7;
    private const int TaskSwitched = 8;
    private const int Halt = 10;
    private const int SetPte = 14;
    private const int SetPgd = 15;
    private const int LoadTls = 16;
    private const int SendInterrupts = 19;

    private ulong _root;
    private ulong _stack;
    private int _drained;

    public override string Name => "lguest";

    public override bool InterruptFlag
    {
        get => Monitor.Read32(IrqEnabled) != 0;
        set => Monitor.Write32(IrqEnabled, value ? (uint)GuestMemory.InterruptFlag : 0);
    }

    public override ulong Cr3
    {
        get => _root;
        set => _root = value;
    }

    public override ulong StackPointer0 => _stack;

    /// <summary>
    /// lguest's table has no halt for good; its kernels power off by a function elsewhere, which the guest has in the slot.
    /// </summary>
    public override Backend CreateBackend(GuestImage image, StandardBackendOptions? options = null) =>
        StandardBackends.Lguest(
            StandardLayout.For(image.Bitness), image.Targets, options?.Lguest ?? new LguestOptions { LguestData = LguestData })
            .Derive(Name, b => b.Call("irq.halt", image.Functions["lguest_power_off"]));

    /// <summary>Interrupt returns only: lguest's guests are told that there is no sysenter.</summary>
    public override int ExitKinds(int bitness) => 1;

    public override LazyPolicy? Policy => LazyPolicy.Lguest;

    public override IReadOnlyDictionary<string, LazyEvent> LazyEvents { get; } = new Dictionary<string, LazyEvent>
    {
        ["paravirt_enter_lazy_mmu"] = LazyEvent.EnterMmu,
        ["paravirt_start_context_switch"] = LazyEvent.StartSwitch,
        ["lguest_flush_async.now"] = LazyEvent.Leave,
        ["lguest_call.masked"] = new LazyEvent(LazyEventKind.Call),
    };

    public override Verdict Judge(Special special) => special switch
    {
        Special.InterruptCall => Verdict.Hypercall,
        Special.ReadTime or Special.Flags or Special.InterruptReturn => Verdict.Execute,
        _ => Verdict.Refuse,
    };

    public override Verdict JudgeTableWrite() => Verdict.Refuse;

    public override void SetFaultAddress(ulong address) => Monitor.Write32(FaultAddress, (uint)address);

    public override void ShowPending(bool isPending) => Monitor.Write32(IrqPending, isPending ? 1u : 0);

    public override void Call(Special special)
    {
        // What is in the ring came before.
        int drained = 0;
        for (; Monitor.Memory[(int)Status + _drained] != Free; drained++)
        {
            ulong entry = Ring + (ulong)(_drained * RingEntry);
            Do(Monitor.Read32(entry), Monitor.Read32(entry + 4), Monitor.Read32(entry + 8));
            Monitor.Memory[(int)Status + _drained] = Free;
            _drained = (_drained + 1) % RingSize;
        }

        uint number = (uint)Monitor.Cpu[CpuRegister.Rax];
        Monitor.Meter.NoteLguestCall(drained, isOnlyForInterrupts: number == SendInterrupts, isOnlyFlush: number == FlushAsync);
        Do(number, (uint)Monitor.Cpu[CpuRegister.Rdx], (uint)Monitor.Cpu[CpuRegister.Rcx]);
    }

    protected override void Prepare() => Monitor.Memory.Slice((int)Status, RingSize).Fill(Free);

    /// <summary>The guest's functions for lguest.</summary>
    public static void WriteFunctions(GuestAssembler a)
    {
        WriteInterrupts(a);

        // lguest_call(call, argument, argument): at once, or in the ring where calls are put off and there is room.
        a.Enter("lguest_call");
        a.Load32(a.S3, Register.None, (int)IrqEnabled);
        a.Asm.mov(__dword_ptr[IrqEnabled], 0);
        a.Function("lguest_call.masked");
        Label now = a.Asm.CreateLabel();
        Label done = a.Asm.CreateLabel();
        Label quiet = a.Asm.CreateLabel();
        WriteJumpUnlessLazy(a, now);
        a.Load(a.S0, Next);
        a.Asm.cmp(__byte_ptr[ebx + (int)Status], unchecked((sbyte)Free));
        a.Asm.jne(now); // full: the host empties it before it does this call
        a.Move(a.S1, a.S0);
        a.ShiftLeft(a.S1, 4);
        a.Store(a.S1, (int)Ring, Register.EAX);
        a.Store(a.S1, (int)Ring + 4, Register.EDX);
        a.Store(a.S1, (int)Ring + 8, Register.ECX);
        a.Asm.mov(__byte_ptr[ebx + (int)Status], 0); // last: from here on it is the host's
        a.Do(Alu.Add, a.S0, 1);
        a.Do(Alu.And, a.S0, RingSize - 1);
        a.Store(Next, a.S0);
        a.Asm.jmp(done);
        a.Bind(ref now);
        a.Asm.@int(Trap); // cd 1f
        a.Bind(ref done);
        a.Store32(Register.None, (int)IrqEnabled, a.S3);
        a.Do(Alu.Cmp, a.S3, 0);
        a.Asm.je(quiet);
        a.Call("lguest_check");
        a.Bind(ref quiet);
        a.Leave();

        WriteCall(a, "lguest_set_pte", SetPte);
        WriteCall(a, "lguest_set_pmd", SetPgd);
        a.Function("lguest_write_cr3");
        a.Store(Root, a.A0);
        WriteCall(a, "lguest_new_page_table", NewPageTable);
        a.Function("lguest_read_cr3");
        a.Load(a.Ret, Root);
        a.Asm.ret();
        WriteCall(a, "lguest_flush_tlb_user", FlushTlb);
        WriteCall(a, "lguest_flush_tlb_single", FlushTlb);
        a.Function("lguest_load_sp0");
        a.Store(GuestMemory.StackPointer0, a.A0);
        WriteCall(a, "lguest_set_stack", SetStack);
        a.Function("lguest_load_tls");
        a.Load(a.A0, a.A0, TaskTls);
        WriteCall(a, "lguest_tls", LoadTls);
        WriteCall(a, "lguest_clts", TaskSwitched);
        WriteCall(a, "lguest_load_idt", LoadIdtEntry);
        WriteCall(a, "lguest_power_off", Shutdown);
        a.Function("lguest_safe_halt");
        a.Asm.mov(__dword_ptr[IrqEnabled], GuestMemory.InterruptFlag);
        WriteCall(a, "lguest_halt", Halt);
        a.Function("lguest_wbinvd");
        a.Asm.ret();
        a.Function("lguest_flush_async");
        a.Set(a.A0, FlushAsync);
        a.Function("lguest_flush_async.now");
        a.Asm.@int(Trap);
        a.Asm.ret();
        Hypervisor.WriteLazyModes(
            a, "lguest_flush_async", ["lguest_enter_lazy_mmu", "paravirt_enter_lazy_mmu"], ["lguest_leave_lazy_mmu_mode"],
            "paravirt_start_context_switch", "lguest_end_context_switch");
    }

    private static void WriteInterrupts(GuestAssembler a)
    {
        a.Function("lguest_irq_disable");
        a.Asm.mov(__dword_ptr[IrqEnabled], 0);
        a.Asm.ret();
        a.Function("lguest_save_fl");
        a.Asm.mov(eax, __dword_ptr[IrqEnabled]);
        a.Asm.ret();
        a.Function("lg_irq_enable");
        a.Asm.mov(__dword_ptr[IrqEnabled], GuestMemory.InterruptFlag);
        a.Jump("lguest_check");
        Label off = a.Asm.CreateLabel();
        a.Function("lg_restore_fl");
        a.Asm.and(eax, GuestMemory.InterruptFlag);
        a.Asm.mov(__dword_ptr[IrqEnabled], eax);
        a.Asm.je(off);

        // Interrupts that came while they were not wanted wait for the host to be called.
        a.Function("lguest_check");
        a.Asm.cmp(__dword_ptr[IrqPending], 0);
        a.Asm.je(off);
        a.Asm.push(eax);
        a.Asm.mov(eax, SendInterrupts);
        a.Asm.@int(Trap);
        a.Asm.pop(eax);
        a.Bind(ref off);
        a.Asm.ret();

        a.Function("lguest_iret");
        a.Asm.push(eax);
        a.Asm.mov(eax, __dword_ptr[esp + 12]); // the flags of the frame
        a.Asm.and(eax, GuestMemory.InterruptFlag);
        a.Asm.mov(__dword_ptr[IrqEnabled], eax);
        a.Asm.pop(eax);
        a.Asm.iretd();
        a.Function("lguest_read_cr2");
        a.Asm.mov(eax, __dword_ptr[FaultAddress]);
        a.Asm.ret();
    }

    private static void WriteCall(GuestAssembler a, string name, int number)
    {
        a.Function(name);
        a.Move(a.A2, a.A1);
        a.Move(a.A1, a.A0);
        a.Set(a.A0, (ulong)number);
        a.Jump("lguest_call");
    }

    private void Do(uint number, uint first, uint second)
    {
        switch (number)
        {
            case FlushAsync or SendInterrupts or TaskSwitched:
                break; // the ring is empty by now, and interrupts are looked at before the guest's next instruction
            case Shutdown:
                Monitor.End();
                break;
            case NewPageTable:
                Load(first);
                break;
            case FlushTlb:
                Monitor.FlushTranslations();
                break;
            case LoadIdtEntry:
                Monitor.Interrupts.UseTable(first);
                break;
            case SetStack:
                _stack = first;
                break;
            case Halt:
                Monitor.Interrupts.Wait();
                break;
            case SetPte or SetPgd:
                UpdateTable(first, second);
                break;
            case LoadTls:
                Monitor.Write32(TlsDescriptor, first);
                break;
            default:
                throw new GuestException($"lguest: there is no call {number}");
        }
    }
}
