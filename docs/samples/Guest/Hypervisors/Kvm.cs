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
/// A KVM guest of the days before nested page tables (2.6.26 and later): the processor runs it as it would run on bare hardware, but for
/// what leaves the guest. Page tables are shadowed, so each store to one traps, unless the guest hands its updates over by hypercall, up to
/// 1024 bytes of them.
/// </summary>
internal sealed class Kvm : Native
{
    // The clock's two words, and the buffer: records of 24 bytes (write an entry) and 8 bytes (flush translations).
    private const ulong Time = Shared + 0x300;
    private const ulong Buffer = Shared + 0x3000;
    private const ulong BufferBytes = Data + 0x220;
    private const int MostBufferBytes = 1024;
    private const int MmuOp = 2;
    private const int WriteEntry = 1;
    private const int FlushTlb = 2;
    private const int WriteEntryBytes = 24;
    private const int FlushTlbBytes = 8;

    public override string Name => "kvm";

    /// <summary>Instead of an answer, what a hypervisor that has gone wrong would give.</summary>
    public ulong? Rubbish { get; init; }

    public override Backend CreateBackend(GuestImage image, StandardBackendOptions? options = null) => StandardBackends.Kvm(
        StandardLayout.For(image.Bitness), image.Bitness, image.Targets,
        options?.Kvm ?? new KvmOptions { Features = KvmFeatures.ClockSource | KvmFeatures.MmuOp, MultipleCpus = false }, options?.Native);

    /// <summary>KVM's queue; here what is done at once goes behind what is queued, as with the others.</summary>
    public override LazyPolicy? Policy => LazyPolicy.Kvm with { KeepsOrder = true };

    public override IReadOnlyDictionary<string, LazyEvent> LazyEvents { get; } = new Dictionary<string, LazyEvent>
    {
        ["kvm_enter_lazy_mmu"] = LazyEvent.EnterMmu,
        ["kvm_mmu_leave.masked"] = LazyEvent.Leave,
        ["kvm_set_pte.masked"] = new LazyEvent(LazyEventKind.Call, WriteEntryBytes),
        ["kvm_flush_tlb.masked"] = new LazyEvent(LazyEventKind.Call, FlushTlbBytes),
    };

    public override Verdict Judge(Special special) => special switch
    {
        Special.Vmcall => Verdict.Hypercall,
        Special.WriteCr3 or Special.FlushPage or Special.Halt or Special.Clts or Special.Wbinvd => Verdict.Trap,
        Special.Out or Special.InterruptCall => Verdict.Refuse,
        _ => Verdict.Execute,
    };

    public override Verdict JudgeTableWrite() => Verdict.Trap;

    public override void Call(Special special)
    {
        ulong number = Monitor.Cpu[CpuRegister.Rax];
        ulong length = Monitor.Cpu[CpuRegister.Rbx];
        ulong address = Monitor.Cpu[CpuRegister.Rcx];
        if (special != Special.Vmcall || number != MmuOp || length > MostBufferBytes)
        {
            throw new GuestException($"kvm: there is no call {number} with {length} bytes");
        }

        int records = 0;
        for (ulong at = address; at < address + length; records++)
        {
            switch (Monitor.Read32(at))
            {
                case WriteEntry:
                    UpdateTable(Monitor.ReadWord(at + 8), Monitor.ReadWord(at + 16));
                    at += WriteEntryBytes;
                    break;
                case FlushTlb:
                    Monitor.FlushTranslations();
                    at += FlushTlbBytes;
                    break;
                default:
                    throw new GuestException($"kvm: there is no operation {Monitor.Read32(at)}");
            }
        }

        Monitor.Meter.NoteBatch(records);
        Monitor.Cpu[CpuRegister.Rax] = Rubbish ?? length;
    }

    /// <summary>The guest's functions for KVM.</summary>
    public static new void WriteFunctions(GuestAssembler a)
    {
        a.Enter("kvm_set_pte", "kvm_set_pmd", "kvm_set_pud", "kvm_set_pgd");
        a.Move(a.S0, a.A0);
        a.Move(a.S1, a.A1);
        WriteRoom(a, WriteEntryBytes, "kvm_set_pte.masked");
        a.Load(a.T, BufferBytes);
        a.StoreNumber(a.T, (int)Buffer, WriteEntry); // of 64-bit fields 32-bit code fills the lower halves, which are what is read
        a.Store(a.T, (int)Buffer + 8, a.S0);
        a.Store(a.T, (int)Buffer + 16, a.S1);
        a.Do(Alu.Add, BufferBytes, WriteEntryBytes);
        a.Jump("kvm_queue.issue");

        a.Enter("kvm_flush_tlb");
        WriteRoom(a, FlushTlbBytes, "kvm_flush_tlb.masked");
        a.Load(a.T, BufferBytes);
        a.StoreNumber(a.T, (int)Buffer, FlushTlb);
        a.Do(Alu.Add, BufferBytes, FlushTlbBytes);
        a.Function("kvm_queue.issue");
        Label now = a.Asm.CreateLabel();
        Label queued = a.Asm.CreateLabel();
        WriteJumpUnlessLazy(a, now);
        a.Asm.jmp(queued);
        a.Bind(ref now);
        a.Call("kvm_mmu_flush");
        a.Bind(ref queued);
        a.Add(Code.Popfq, Code.Popfd);
        a.Leave();

        a.Function("kvm_mmu_leave");
        a.Add(Code.Pushfq, Code.Pushfd);
        a.Asm.cli();
        a.Function("kvm_mmu_leave.masked");
        a.Call("kvm_mmu_flush");
        a.Add(Code.Popfq, Code.Popfd);
        a.Asm.ret();

        // The answer is how many bytes were taken: all of them or some, never none or more.
        a.Enter("kvm_mmu_flush");
        a.Set(a.S1, Buffer);
        a.Function("kvm_mmu_flush.more");
        Label done = a.Asm.CreateLabel();
        a.Load(a.S0, BufferBytes); // rbx, where the call takes it
        a.Do(Alu.Cmp, a.S0, 0);
        a.Asm.je(done);
        a.Move(a.IsWide ? Register.RCX : Register.ECX, a.S1);
        a.Asm.xor(edx, edx);
        a.Set(a.Ret, MmuOp);
        a.Asm.vmcall(); // 0f 01 c1
        a.Do(Alu.Cmp, a.Ret, 0);
        a.Asm.je(done); // none taken: seen below
        a.Do(Alu.Add, a.S1, a.Ret);
        a.Do(Alu.Sub, a.S0, a.Ret);
        a.Store(BufferBytes, a.S0);
        a.Asm.jae(a.LabelOf("kvm_mmu_flush.more"));
        a.Jump("panic");
        a.Bind(ref done);
        a.Do(Alu.Cmp, BufferBytes, 0);
        a.JumpIfNot("panic");
        a.Leave();

        WriteLazyModes(
            a, "kvm_mmu_leave", ["kvm_enter_lazy_mmu"], ["kvm_leave_lazy_mmu"], "kvm_start_context_switch", "kvm_end_context_switch");
        WriteClock(a, "kvm_sched_clock_read", Time);
    }

    /// <summary>Keeps interrupts off from here on, and makes room in the buffer.</summary>
    private static void WriteRoom(GuestAssembler a, int bytes, string masked)
    {
        Label room = a.Asm.CreateLabel();
        a.Add(Code.Pushfq, Code.Pushfd);
        a.Asm.cli();
        a.Function(masked);
        a.Do(Alu.Cmp, BufferBytes, MostBufferBytes - bytes);
        a.Asm.jbe(room);
        a.Call("kvm_mmu_flush");
        a.Bind(ref room);
    }
}
