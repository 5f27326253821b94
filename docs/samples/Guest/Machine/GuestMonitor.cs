using System.Runtime.InteropServices;
using PvGuest.Hypervisors;
using PvGuest.Kernel;
using PvPatch.Images;
using static PvGuest.Kernel.GuestMemory;

namespace PvGuest.Machine;

/// <summary>What went wrong in the guest or between it and its hypervisor.</summary>
internal sealed class GuestException(string message) : Exception(message);

/// <summary>
/// The machine around the emulated processor: memory, address translation, a timer that ticks by instructions executed, interrupts. It sees
/// every instruction before it is executed and asks its hypervisor about those that are not ordinary. Nothing in it depends on the host's
/// time, so a run has the same digits each time.
/// </summary>
internal sealed unsafe class GuestMonitor : ICpuEvents, IDisposable
{
    private const long MostInstructions = 2_000_000;
    private const ulong CodeEnd = Rom + 0x1000;

    private readonly Hypervisor _hypervisor;
    private readonly byte* _memory;
    private readonly int _codeLength;
    private readonly SpecialInstructions _specials;
    private readonly Translations _translations;
    private bool _isShadowed; // the instruction behind sti is not interrupted
    private bool _hasEnded;
    private string? _error;
    private ulong? _fault;
    private bool _faultIsWrite;
    private bool _isInterrupted;
    private Special _special;

    /// <summary>Loads a guest into a machine.</summary>
    /// <param name="image">The guest.</param>
    /// <param name="text">Its code, patched or not.</param>
    /// <param name="hypervisor">What it runs on.</param>
    /// <param name="operations">The backend whose functions the table of operations holds.</param>
    /// <param name="ticks">How often the timer ticks.</param>
    /// <param name="period">Instructions from tick to tick.</param>
    public GuestMonitor(
        GuestImage image, CodeImage text, Hypervisor hypervisor, PvPatch.Mechanisms.Backend operations, int ticks, int period)
    {
        Word = image.Word;
        _hypervisor = hypervisor;
        Interrupts = new Interrupts(this, hypervisor, ticks, period);
        _memory = (byte*)NativeMemory.AlignedAlloc(Size, EmulatedCpu.PageSize);
        Memory.Clear();
        image.Load(Memory, text, operations, hypervisor.ExitKinds(image.Bitness), ticks);
        _codeLength = image.Length;
        _specials = new SpecialInstructions(image.Bitness, _memory, (int)Text, (int)CodeEnd);
        Meter = new Meter(image, hypervisor);
        Cpu = new EmulatedCpu(image.Bitness, this);
        if (!Cpu.TryMap(0, _memory, Size, isWritable: true))
        {
            throw new InvalidOperationException("the emulator takes no memory");
        }

        _translations = new Translations(Cpu, _memory, Word);
        Cpu.Watch(Tables, Tables + TablesSize - 1);
        Cpu[CpuRegister.Rip] = image.Functions["start"].Value;
        Cpu[CpuRegister.Rsp] = Stacks + 0x1000;
        Cpu[CpuRegister.Flags] = 2;
        if (Word == 8)
        {
            Cpu[CpuRegister.GsBase] = Shared;
        }

        hypervisor.Attach(this);
    }

    public EmulatedCpu Cpu { get; }

    /// <summary>What is counted.</summary>
    public Meter Meter { get; }

    public Interrupts Interrupts { get; }

    /// <summary>Bytes of a word.</summary>
    public int Word { get; }

    /// <summary>The guest's memory.</summary>
    public Span<byte> Memory => new(_memory, Size);

    public string Console
    {
        get
        {
            ReadOnlySpan<byte> text = Memory[(int)GuestMemory.ConsoleText..];
            return System.Text.Encoding.ASCII.GetString(text[..text.IndexOf((byte)0)]);
        }
    }

    /// <summary>All page tables there may be.</summary>
    public ReadOnlySpan<byte> PageTables => Memory.Slice((int)Tables, TablesSize);

    public ulong ReadWord(ulong address) => GuestMemory.ReadWord(Memory, Checked(address), Word);

    public void WriteWord(ulong address, ulong value) => GuestMemory.WriteWord(Memory, Checked(address), value, Word);

    public uint Read32(ulong address) => (uint)GuestMemory.ReadWord(Memory, Checked(address), 4);

    public void Write32(ulong address, uint value) => GuestMemory.WriteWord(Memory, Checked(address), value, 4);

    /// <summary>Forgets which pages are where: they are looked up in the page tables again.</summary>
    public void FlushTranslations() => _translations.Flush();

    /// <summary>Runs the guest until it halts for good.</summary>
    /// <exception cref="GuestException">It, or its hypervisor, did what can't be.</exception>
    public void Run()
    {
        while (!_hasEnded)
        {
            CpuStop stop = Cpu.Run();
            if (_error is string error)
            {
                throw new GuestException($"{error} (instruction {Meter.Total}, at 0x{Cpu[CpuRegister.Rip]:x})");
            }

            if (stop == CpuStop.Access)
            {
                RaisePageFault();
            }
            else if (_isInterrupted)
            {
                _isInterrupted = false;
                Interrupts.DeliverTick();
            }
            else
            {
                Emulate(_special);
            }
        }

        if (Word == 8 && Cpu[CpuRegister.GsBase] != Shared)
        {
            throw new GuestException("the guest ended with the user's gs base");
        }
    }

    /// <summary>Ends the run.</summary>
    public void End() => _hasEnded = true;

    bool ICpuEvents.BeforeInstruction(ulong address)
    {
        if (Interrupts.MustDeliver(Meter.Total) && !_isShadowed)
        {
            _isInterrupted = true;
            return false;
        }

        _isShadowed = false;
        if (address - Text >= (ulong)_codeLength && !_hypervisor.HasCodeAt(address))
        {
            return Fail($"{_hypervisor.Name}: the guest runs at 0x{address:x}, where there is no code");
        }

        if (Meter.Total > MostInstructions)
        {
            return Fail($"the guest does not end in {MostInstructions} instructions");
        }

        Special special = _specials.At(address);
        if (Meter.Count(address, special) is string mistake)
        {
            return Fail(mistake);
        }

        return special <= Special.LastOrdinary || Consider(special, address);
    }

    bool ICpuEvents.WatchedWrite(ulong address)
    {
        switch (_hypervisor.JudgeTableWrite())
        {
            case Verdict.Execute:
                return true;
            case Verdict.Trap:
                Meter.CountTrap();
                return true;
            default:
                return Fail(
                    $"{_hypervisor.Name}: the guest writes the page table at 0x{address:x} itself, which is the hypervisor's to do");
        }
    }

    bool ICpuEvents.Unmapped(ulong address, bool isWrite)
    {
        if (_translations.TryAdd(_hypervisor.Cr3, address, isWrite))
        {
            return true;
        }

        _fault = address;
        _faultIsWrite = isWrite;
        return false;
    }

    public void Dispose()
    {
        Cpu.Dispose();
        NativeMemory.AlignedFree(_memory);
    }

    // Counts what an instruction costs. What the processor does not do by itself stops it.
    private bool Consider(Special special, ulong address)
    {
        bool isRom = address >= Rom;
        Verdict verdict = Interrupts.IsUser || (isRom && special != Special.Out) ? Verdict.Execute : _hypervisor.Judge(special);
        switch (verdict)
        {
            case Verdict.Refuse:
                return Fail($"{_hypervisor.Name}: a guest may not execute {special} ({_specials.TextAt(address)} at 0x{address:x})");
            case Verdict.Trap:
                Meter.CountTrap();
                Interrupts.ComeToHypervisor();
                break;
            case Verdict.Hypercall:
                Interrupts.ComeToHypervisor();
                Meter.CountHypercall();
                break;
        }

        if (Interrupts.IsUser && special is Special.Syscall && _hypervisor.SystemCallsTrap)
        {
            Meter.CountTrap();
        }

        _isShadowed = special == Special.Sti;
        _special = special;
        return special <= Special.LastOfProcessor;
    }

    // What the emulator has not: rings, interrupts, time, address translation, and a hypervisor.
    private void Emulate(Special special)
    {
        ulong at = Cpu[CpuRegister.Rip];
        ulong next = at + (ulong)_specials.LengthAt(at);
        Cpu[CpuRegister.Rip] = next;
        switch (special)
        {
            case Special.ReadTime:
                Cpu[CpuRegister.Rax] = (uint)Meter.Total;
                Cpu[CpuRegister.Rdx] = (ulong)Meter.Total >> 32;
                break;
            case Special.WriteCr3:
                _hypervisor.Cr3 = Cpu[_specials.OperandAt(at)];
                FlushTranslations();
                break;
            case Special.FlushPage:
                _translations.Flush(Cpu[_specials.OperandAt(at)]);
                break;
            case Special.LoadIdt:
                Interrupts.UseTable(Cpu[_specials.OperandAt(at)]);
                break;
            case Special.Halt when _hypervisor.InterruptFlag:
                Interrupts.Wait();
                break;
            case Special.Halt:
                End();
                break;
            case Special.InterruptReturn:
                Interrupts.Return();
                break;
            case Special.SysExit:
                Interrupts.ExitToUser();
                break;
            case Special.SysRet:
                Interrupts.ReturnFromSystemCall();
                break;
            case Special.Syscall when Interrupts.IsUser:
                Interrupts.EnterSystemCall(next);
                break;
            case Special.InterruptCall when Interrupts.IsUser:
                Interrupts.Deliver(Machine.Interrupts.SystemCallVector);
                break;
            default:
                _hypervisor.Call(special);
                break;
        }
    }

    private void RaisePageFault()
    {
        ulong address = _fault ?? throw new GuestException($"an access failed at 0x{Cpu[CpuRegister.Rip]:x}");
        _fault = null;
        if (address - Window >= Pages * EmulatedCpu.PageSize)
        {
            throw new GuestException($"the guest accesses 0x{address:x}, where it has nothing (at 0x{Cpu[CpuRegister.Rip]:x})");
        }

        Meter.CountAgain();
        _hypervisor.SetFaultAddress(address);
        Interrupts.Deliver(Machine.Interrupts.PageFaultVector, _faultIsWrite ? 2u : 0u);
    }

    private bool Fail(string error)
    {
        _error = error;
        return false;
    }

    private static ulong Checked(ulong address) =>
        address <= Size - 8 ? address : throw new GuestException($"0x{address:x} is not in the guest's memory");
}
