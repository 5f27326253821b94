using Iced.Intel;
using PvGuest.Kernel;
using PvGuest.Machine;
using PvPatch;
using PvPatch.LazyModes;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using static Iced.Intel.AssemblerRegisters;
using static PvGuest.Kernel.GuestMemory;

namespace PvGuest.Hypervisors;

/// <summary>
/// A guest with the VMI interface, 32-bit only: its hypervisor puts a ROM into the guest, whose code the guest calls instead of privileged
/// instructions. Whether interrupts are allowed and which calls are put off the ROM knows; the guest only tells it the lazy mode.
/// </summary>
internal sealed class Vmi : Hypervisor
{
    private ulong _root;
    private ulong _stack;

    public override string Name => "vmi";

    public override bool InterruptFlag
    {
        get => Monitor.Read32(VmiRom.Enabled) != 0;
        set => Monitor.Write32(VmiRom.Enabled, value ? (uint)GuestMemory.InterruptFlag : 0);
    }

    public override ulong Cr3
    {
        get => _root;
        set => _root = value;
    }

    public override ulong StackPointer0 => _stack;

    public override Backend CreateBackend(GuestImage image, StandardBackendOptions? options = null) => StandardBackends.Vmi(
        StandardLayout.For(image.Bitness), image.Targets, options?.Vmi ?? new VmiOptions { GetRelocation = VmiRom.GetRelocation });

    /// <summary>The ROM's rules: the guest itself puts nothing off, it tells the mode (<see cref="LazyPolicy.Vmi"/>).</summary>
    public override LazyPolicy? Policy => new() { Name = "VMI ROM", Capacity = VmiRom.MostCalls };

    public override IReadOnlyDictionary<string, LazyEvent> LazyEvents { get; } = new Dictionary<string, LazyEvent>
    {
        ["vmi_lazy_mode.enter"] = LazyEvent.EnterMmu,
        ["vmi_start_context_switch"] = LazyEvent.StartSwitch,
        ["set_lazy_mode.leave"] = LazyEvent.Leave,
        ["call.masked"] = new LazyEvent(LazyEventKind.Call),
        ["call.now"] = new LazyEvent(LazyEventKind.Call),
    };

    public override ulong AddressOf(GuestImage image, string function) =>
        image.Functions.TryGetValue(function, out VirtualAddress address) ? address.Value : VmiRom.AddressOf(function);

    public override Verdict Judge(Special special) => special switch
    {
        Special.Out => Verdict.Hypercall,
        Special.ReadTime or Special.Flags => Verdict.Execute,
        _ => Verdict.Refuse,
    };

    public override bool HasCodeAt(ulong address) => address - Rom < (ulong)VmiRom.Code.Length;

    public override Verdict JudgeTableWrite() => Verdict.Refuse;

    public override void SetFaultAddress(ulong address) => Monitor.Write32(VmiRom.FaultAddress, (uint)address);

    public override void ShowPending(bool isPending) => Monitor.Write32(VmiRom.Pending, isPending ? 1u : 0);

    public override void Call(Special special)
    {
        uint number = (uint)Monitor.Cpu[CpuRegister.Rax];
        if (number != VmiRom.Flush)
        {
            if (number is not (VmiRom.EnableInterrupts or VmiRom.SysExit))
            {
                Monitor.Meter.NoteBatch(1);
            }

            Do(number, (uint)Monitor.Cpu[CpuRegister.Rdx], (uint)Monitor.Cpu[CpuRegister.Rcx]);
            return;
        }

        uint count = Monitor.Read32(VmiRom.Count);
        if (count > VmiRom.MostCalls)
        {
            throw new GuestException($"vmi: the ROM has {count} calls in a queue of {VmiRom.MostCalls}");
        }

        Monitor.Meter.NoteBatch((int)count);
        for (uint i = 0; i < count; i++)
        {
            ulong entry = VmiRom.Queue + (i * VmiRom.QueueEntry);
            Do(Monitor.Read32(entry), Monitor.Read32(entry + 4), Monitor.Read32(entry + 8));
        }

        Monitor.Write32(VmiRom.Count, 0);
    }

    protected override void Prepare() => VmiRom.Code.CopyTo(Monitor.Memory[(int)Rom..]);

    /// <summary>The guest's functions for VMI: they only have to find the ROM.</summary>
    public static void WriteFunctions(GuestAssembler a)
    {
        Wrap("vmi_set_pte", VmiRom.SetEntry);
        Wrap("vmi_set_pmd", VmiRom.SetEntry);
        a.Function("vmi_write_cr3");
        a.Asm.mov(__dword_ptr[VmiRom.Root], eax);
        Wrap("vmi_set_cr3", VmiRom.SetCr3);
        Wrap("vmi_flush_tlb_user", VmiRom.FlushTlb);
        Wrap("vmi_flush_tlb_single", VmiRom.FlushTlb);
        Wrap("vmi_load_sp0", VmiRom.UpdateKernelStack);
        a.Function("vmi_load_tls");
        a.Load(a.A0, a.A0, TaskTls);
        Wrap("vmi_write_descriptor", VmiRom.WriteDescriptor);
        Wrap("vmi_load_idt", VmiRom.SetIdt);
        Wrap("vmi_safe_halt", VmiRom.Halt);
        Wrap("vmi_halt", VmiRom.Shutdown);
        Wrap("vmi_clts", VmiRom.ClearTaskSwitched);
        a.Function("vmi_wbinvd");
        a.Asm.ret();
        a.Function("vmi_read_cr3");
        a.Asm.mov(eax, __dword_ptr[VmiRom.Root]);
        a.Asm.ret();
        a.Function("vmi_read_cr2");
        a.Asm.mov(eax, __dword_ptr[VmiRom.FaultAddress]);
        a.Asm.ret();

        // In an interrupt nothing is put off: what has been is made at once, in its order, by leaving the mode and entering it again.
        Label done = a.Asm.CreateLabel();
        a.Function("vmi_call");
        a.Asm.call(VmiRom.AddressOf("call"));
        a.Do(Alu.Cmp, InInterrupt, 0);
        a.Asm.je(done);
        a.Do(Alu.Cmp, CurrentMode, 0);
        a.Asm.je(done);
        a.Asm.xor(eax, eax);
        a.Asm.call(VmiRom.AddressOf("set_lazy_mode"));
        a.Asm.mov(eax, __dword_ptr[CurrentMode]);
        a.Asm.call(VmiRom.AddressOf("set_lazy_mode"));
        a.Bind(ref done);
        a.Asm.ret();

        WriteMode("vmi_lazy_mode.enter", 1);
        WriteMode("vmi_start_context_switch", 2);

        // ROM and kernel leave as one. An interrupt between the two would have vmi_call tell the ROM a mode that is left already.
        a.Function("vmi_lazy_mode.leave", "vmi_end_context_switch");
        a.Asm.call(VmiRom.AddressOf("get"));
        a.Asm.push(eax);
        a.Asm.call(VmiRom.AddressOf("disable"));
        a.Asm.xor(eax, eax);
        a.Asm.call(VmiRom.AddressOf("set_lazy_mode"));
        a.StoreNumber(CurrentMode, 0);
        a.Asm.pop(eax);
        a.Asm.call(VmiRom.AddressOf("set"));
        a.Asm.ret();

        void Wrap(string name, uint call)
        {
            a.Function(name);
            a.Asm.mov(ecx, edx);
            a.Asm.mov(edx, eax);
            a.Asm.mov(eax, call);
            a.Jump("vmi_call");
        }

        void WriteMode(string name, int mode)
        {
            a.Function(name);
            a.StoreNumber(CurrentMode, mode);
            a.Asm.mov(eax, mode);
            a.Asm.call(VmiRom.AddressOf("set_lazy_mode"));
            a.Asm.ret();
        }
    }

    private void Do(uint number, uint first, uint second)
    {
        switch (number)
        {
            case VmiRom.EnableInterrupts or VmiRom.ClearTaskSwitched:
                break; // interrupts are looked at before the guest's next instruction
            case VmiRom.SysExit:
                Monitor.Interrupts.ExitToUser();
                break;
            case VmiRom.SetEntry:
                UpdateTable(first, second);
                break;
            case VmiRom.SetCr3:
                Load(first);
                break;
            case VmiRom.FlushTlb:
                Monitor.FlushTranslations();
                break;
            case VmiRom.UpdateKernelStack:
                _stack = first;
                break;
            case VmiRom.WriteDescriptor:
                Monitor.Write32(TlsDescriptor, first);
                break;
            case VmiRom.SetIdt:
                Monitor.Interrupts.UseTable(first);
                break;
            case VmiRom.Halt:
                InterruptFlag = true;
                Monitor.Interrupts.Wait();
                break;
            case VmiRom.Shutdown:
                Monitor.End();
                break;
            default:
                throw new GuestException($"vmi: there is no call {number}");
        }
    }
}
