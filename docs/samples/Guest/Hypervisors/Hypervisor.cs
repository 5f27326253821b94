using PvGuest.Kernel;
using PvGuest.Machine;
using PvPatch.LazyModes;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;

namespace PvGuest.Hypervisors;

/// <summary>What a machine does about an instruction that is not an ordinary one.</summary>
internal enum Verdict
{
    /// <summary>The processor may execute it.</summary>
    Execute,

    /// <summary>It leaves the guest, is done by the hypervisor and costs what that costs.</summary>
    Trap,

    /// <summary>It calls the hypervisor.</summary>
    Hypercall,

    /// <summary>A guest of this hypervisor may not execute it, and the hypervisor does not do it instead.</summary>
    Refuse,
}

/// <summary>
/// What the guest runs on: which instructions trap, what its calls do, how it is interrupted. The files of this folder have each both
/// halves of an interface, the functions in the guest and what answers them.
/// </summary>
internal abstract class Hypervisor
{
    private GuestMonitor? _monitor;

    public abstract string Name { get; }

    /// <summary>Whether interrupts may come. A paravirtual guest says so in memory that it shares with its hypervisor.</summary>
    public abstract bool InterruptFlag { get; set; }

    /// <summary>Whether the machine sees at once that interrupts are allowed, as a processor sees its own flag.</summary>
    public virtual bool SeesInterruptFlag => false;

    /// <summary>The root of the page tables that are in use.</summary>
    public virtual ulong Cr3
    {
        get => Monitor.Cpu[CpuRegister.Cr3];
        set => Monitor.Cpu[CpuRegister.Cr3] = value;
    }

    /// <summary>The stack for entries from user mode.</summary>
    public virtual ulong StackPointer0 => Monitor.ReadWord(GuestMemory.StackPointer0);

    /// <summary>Whether the instruction syscall comes to the hypervisor first, which has to pass it on.</summary>
    public virtual bool SystemCallsTrap => false;

    protected GuestMonitor Monitor => _monitor ?? throw new InvalidOperationException("the hypervisor has no machine yet");

    /// <summary>All for a bitness; lguest and VMI are of 32-bit days.</summary>
    public static IReadOnlyList<Hypervisor> All(int bitness) =>
        bitness == 64 ? [new Native(), new Xen(), new Kvm()] : [new Native(), new Xen(), new Kvm(), new Lguest(), new Vmi()];

    public static Hypervisor Create(string name, int bitness) =>
        All(bitness).First(h => h.Name == name);

    /// <summary>The backend of the guest's image for this hypervisor.</summary>
    public abstract Backend CreateBackend(GuestImage image, StandardBackendOptions? options = null);

    /// <summary>The same without lazy modes: as if the hypervisor took one call at a time.</summary>
    public Backend CreateUnbatchedBackend(GuestImage image, StandardBackendOptions? options = null) =>
        CreateBackend(image, options).Derive(Name, static b => b
            .Nop("mmu.lazy_mode.enter").Nop("mmu.lazy_mode.leave").Nop("cpu.start_context_switch").Nop("cpu.end_context_switch"));

    /// <summary>
    /// How many of the kernel's ways to user mode there are: interrupt return, sysexit, and in 64-bit code three forms of sysret.
    /// </summary>
    public virtual int ExitKinds(int bitness) => bitness == 64 ? 5 : 2;

    public void Attach(GuestMonitor monitor)
    {
        _monitor = monitor;
        Prepare();
    }

    /// <summary>Whether the hypervisor has put code of its own into the guest at an address.</summary>
    public virtual bool HasCodeAt(ulong address) => false;

    /// <summary>What a machine does about an instruction.</summary>
    public abstract Verdict Judge(Special special);

    /// <summary>By what rules calls are put off; <see langword="null"/> where there are none.</summary>
    public virtual LazyPolicy? Policy => null;

    /// <summary>
    /// Where in the guest something becomes of a lazy mode, for the model that is kept beside it: behind the instruction that has
    /// interrupts off, so that none comes between the guest's deed and the model's.
    /// </summary>
    public virtual IReadOnlyDictionary<string, LazyEvent> LazyEvents => new Dictionary<string, LazyEvent>();

    /// <summary>Where a function of <see cref="LazyEvents"/> is.</summary>
    public virtual ulong AddressOf(GuestImage image, string function) => image.Functions[function].Value;

    /// <summary>Does the call that the guest stands at. The instruction pointer is behind it already.</summary>
    public virtual void Call(Special special) => throw new GuestException($"{Name} has no calls");

    /// <summary>Whether the guest may write a page table itself, which is a trap where the hypervisor looks at each such write.</summary>
    public abstract Verdict JudgeTableWrite();

    /// <summary>Hands over the address that could not be accessed.</summary>
    public abstract void SetFaultAddress(ulong address);

    /// <summary>Tells the guest, where it can look, whether an interrupt waits.</summary>
    public virtual void ShowPending(bool isPending)
    {
    }

    /// <summary>Prepares what the guest shares with its hypervisor.</summary>
    protected virtual void Prepare()
    {
    }

    /// <summary>
    /// The functions of lazy modes: entering notes the mode, leaving makes the calls that were put off, and only then is the mode none.
    /// </summary>
    internal static void WriteLazyModes(
        GuestAssembler a, string flush, string[] enterMmu, string[] leaveMmu, string startSwitch, string endSwitch)
    {
        a.Function(enterMmu);
        a.StoreNumber(GuestMemory.CurrentMode, 1);
        a.Asm.ret();
        a.Function(startSwitch);
        a.StoreNumber(GuestMemory.CurrentMode, 2);
        a.Asm.ret();
        a.Function([.. leaveMmu, endSwitch]);
        a.Call(flush);
        a.StoreNumber(GuestMemory.CurrentMode, 0);
        a.Asm.ret();
    }

    /// <summary>Goes to a label unless calls are put off now: no lazy mode, or an interrupt, in which there is none.</summary>
    internal static void WriteJumpUnlessLazy(GuestAssembler a, Iced.Intel.Label now)
    {
        a.Do(Alu.Cmp, GuestMemory.CurrentMode, 0);
        a.Asm.je(now);
        a.Do(Alu.Cmp, GuestMemory.InInterrupt, 0);
        a.Asm.jne(now);
    }

    /// <summary>A clock of what the hypervisor shows and the processor has counted since.</summary>
    internal static void WriteClock(GuestAssembler a, string name, ulong shown)
    {
        a.Function(name);
        a.Asm.rdtsc();
        if (a.IsWide)
        {
            a.ShiftLeft(a.A2, 32);
            a.Do(Alu.Or, a.Ret, a.A2);
        }

        a.Load(a.T, shown);
        a.Do(Alu.Sub, a.Ret, a.T);
        a.Load(a.T, shown + 8);
        a.Do(Alu.Add, a.Ret, a.T);
        a.Asm.ret();
    }

    /// <summary>Does what a page-table entry's update asks for.</summary>
    protected void UpdateTable(ulong address, ulong value)
    {
        if (address < GuestMemory.Tables || address >= GuestMemory.Tables + GuestMemory.TablesSize || address % (ulong)Monitor.Word != 0)
        {
            throw new GuestException($"{Name}: the guest asks for an update at 0x{address:x}, which is no entry of a page table");
        }

        Monitor.WriteWord(address, value);
    }

    protected void Load(ulong root)
    {
        if (root < GuestMemory.Tables || root >= GuestMemory.Tables + GuestMemory.TablesSize || root % EmulatedCpu.PageSize != 0)
        {
            throw new GuestException($"{Name}: the guest asks for page tables at 0x{root:x}, where none are");
        }

        Cr3 = root;
        Monitor.FlushTranslations();
    }
}
