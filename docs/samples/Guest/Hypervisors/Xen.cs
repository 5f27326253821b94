using PvGuest.Kernel;
using PvGuest.Machine;
using PvPatch.LazyModes;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using static PvGuest.Hypervisors.XenFunctions;
using static PvGuest.Kernel.GuestMemory;

namespace PvGuest.Hypervisors;

/// <summary>
/// A Xen paravirtual guest. Events are masked by a byte of vcpu_info, page tables and much else are changed by hypercalls, and up to 32 of
/// these are made as one multicall. Numbers of calls are Xen's; structures are cut down to what is used.
/// </summary>
internal sealed class Xen : Hypervisor
{
    private readonly HashSet<ulong> _pinned = [];
    private ulong _root;
    private ulong _stack;

    public override string Name => "xen";

    public override bool InterruptFlag
    {
        get => Monitor.Memory[(int)EventMask] == 0;
        set => Monitor.Memory[(int)EventMask] = (byte)(value ? 0 : 1);
    }

    public override ulong Cr3
    {
        get => _root;
        set => _root = value;
    }

    public override ulong StackPointer0 => _stack;

    public override bool SystemCallsTrap => true;

    /// <summary>Instead of an answer, what a hypervisor that has gone wrong would give.</summary>
    public ulong? Rubbish { get; init; }

    public override Backend CreateBackend(GuestImage image, StandardBackendOptions? options = null) => StandardBackends.Xen(
        StandardLayout.For(image.Bitness), image.Bitness, image.Targets, options?.Xen ?? Options(image.Bitness));

    /// <summary>
    /// One CPU, so locks stay native; inline interrupt operations. In 64-bit code vcpu_info is named by its offset from gs, in 32-bit code
    /// fs has the base 0.
    /// </summary>
    public static XenOptions Options(int bitness) => new()
    {
        ParavirtSpinlocks = false,
        InlineNativeLocks = true,
        DirectBodies = new XenDirectBodies { VcpuInfo = bitness == 64 ? VcpuInfo - Shared : VcpuInfo },
    };

    public override LazyPolicy? Policy => LazyPolicy.Xen;

    public override IReadOnlyDictionary<string, LazyEvent> LazyEvents { get; } = new Dictionary<string, LazyEvent>
    {
        ["xen_enter_lazy_mmu"] = LazyEvent.EnterMmu,
        ["xen_start_context_switch"] = LazyEvent.StartSwitch,
        ["xen_mc_leave.masked"] = LazyEvent.Leave,
        ["xen_set_pte.masked"] = new LazyEvent(LazyEventKind.Call, UpdatePair, Extends: true),
        ["xen_queue.masked"] = new LazyEvent(LazyEventKind.Call),
    };

    public override Verdict Judge(Special special) => special switch
    {
        Special.Syscall or Special.InterruptCall => Verdict.Hypercall,
        Special.ReadTime or Special.Flags => Verdict.Execute,
        Special.Wbinvd => Verdict.Trap, // emulated
        _ => Verdict.Refuse,
    };

    public override bool HasCodeAt(ulong address) => address - HypercallPage < HypercallCount * HypercallEntry;

    public override Verdict JudgeTableWrite() => Verdict.Refuse;

    public override void SetFaultAddress(ulong address) => Monitor.WriteWord(FaultAddress, address);

    public override void ShowPending(bool isPending) => Monitor.Memory[(int)VcpuInfo] = (byte)(isPending ? 1 : 0);

    public override void Call(Special special)
    {
        bool wide = Monitor.Word == 8;
        int number = (int)Monitor.Cpu[CpuRegister.Rax];
        if (number == Iret)
        {
            ReturnFromEvent(wide);
            return;
        }

        ulong result = Do(
            number,
            Monitor.Cpu[wide ? CpuRegister.Rdi : CpuRegister.Rbx],
            Monitor.Cpu[wide ? CpuRegister.Rsi : CpuRegister.Rcx],
            isInMulticall: false);
        Monitor.Cpu[CpuRegister.Rax] = Rubbish ?? result;
    }

    protected override void Prepare()
    {
        // mov eax,number: b8 imm32; syscall: 0f 05, which destroys rcx and r11, so these are pushed before (51, 41 53) and popped behind it
        // (41 5b, 59); int 82: cd 82; ret: c3. For iret the guest has pushed what must be kept.
        for (int number = 0; number < HypercallCount; number++)
        {
            byte[] load = [0xb8, (byte)number, 0, 0, 0];
            byte[] entry = Monitor.Word == 4 ? [.. load, 0xcd, 0x82, 0xc3]
                : number == Iret ? [.. load, 0x0f, 0x05]
                : [0x51, 0x41, 0x53, .. load, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3];
            entry.CopyTo(Monitor.Memory[((int)HypercallPage + (number * HypercallEntry))..]);
        }

        InterruptFlag = false;
    }

    private void ReturnFromEvent(bool wide)
    {
        ulong sp = Monitor.Cpu[CpuRegister.Rsp];
        Monitor.Cpu[CpuRegister.Rax] = Monitor.Interrupts.Pop(ref sp);
        if (wide)
        {
            Monitor.Cpu[CpuRegister.R11] = Monitor.Interrupts.Pop(ref sp);
            Monitor.Cpu[CpuRegister.Rcx] = Monitor.Interrupts.Pop(ref sp);
        }

        Monitor.Cpu[CpuRegister.Rsp] = sp;
        Monitor.Interrupts.Return();
    }

    private ulong Do(int number, ulong first, ulong second, bool isInMulticall)
    {
        switch (number)
        {
            case SetTrapTable:
                Monitor.Interrupts.UseTable(first);
                break;
            case MmuUpdate:
                for (ulong i = 0; i < second; i++)
                {
                    ulong at = first + (i * 16);
                    ulong entry = Monitor.ReadWord(at);
                    if (!_pinned.Contains(entry >> 12))
                    {
                        throw new GuestException($"xen: the guest asks for an update at 0x{entry:x}, where it has pinned no page table");
                    }

                    UpdateTable(entry, Monitor.ReadWord(at + 8));
                }

                break;
            case StackSwitch:
                _stack = second;
                break;
            case UpdateDescriptor:
                Monitor.WriteWord(first, second);
                break;
            case Multicall when !isInMulticall && second <= MostEntries:
                Monitor.Meter.NoteBatch((int)second);
                ulong size = (ulong)Monitor.Word * 8;
                for (ulong entry = first; entry < first + (second * size); entry += size)
                {
                    ulong word = (ulong)Monitor.Word;
                    ulong result = Do(
                        (int)Monitor.ReadWord(entry),
                        Monitor.ReadWord(entry + (2 * word)),
                        Monitor.ReadWord(entry + (3 * word)),
                        isInMulticall: true);
                    Monitor.WriteWord(entry + word, result);
                }

                break;
            case MmuExtended when first < NewBasePointer:
                _pinned.Add(second);
                break;
            case MmuExtended when first == NewBasePointer:
                Load(second);
                break;
            case MmuExtended when first is FlushTlbLocal or InvalidatePageLocal:
                Monitor.FlushTranslations();
                break;
            case SchedOp when first == Block:
                InterruptFlag = true;
                Monitor.Interrupts.Wait();
                break;
            case SchedOp when first == Shutdown:
                Monitor.End();
                break;
            case ForceEvents or FpuTaskSwitch:
                break; // events are looked at before the guest's next instruction; the unit for floating point has no user here
            default:
                throw new GuestException($"xen: there is no call {number} with 0x{first:x}");
        }

        return 0;
    }
}
