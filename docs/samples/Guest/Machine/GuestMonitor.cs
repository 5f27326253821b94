using System.Runtime.InteropServices;
using Guest.Hypervisors;
using Guest.Kernel;
using PvPatch.Images;
using static Guest.Kernel.GuestMemory;

namespace Guest.Machine;

/// <summary>What went wrong in the guest or between it and its hypervisor.</summary>
internal sealed class GuestException(string message) : Exception(message);

/// <summary>What a run cost.</summary>
internal readonly record struct Costs(long Instructions, long Traps, long Hypercalls)
{
    public static Costs operator -(Costs left, Costs right) =>
        new(left.Instructions - right.Instructions, left.Traps - right.Traps, left.Hypercalls - right.Hypercalls);
}

/// <summary>
/// The machine around the emulated processor: memory, address translation, a timer that ticks by instructions executed, interrupts. It sees every
/// instruction before it is executed and asks its hypervisor about those that are not ordinary. Nothing in it depends on the host's time, so a
/// run has the same digits each time.
/// </summary>
internal sealed unsafe class GuestMonitor : ICpuEvents, IDisposable
{
    public const int TimerVector = 0x20;
    public const int SystemCallVector = 0x80;
    private const int PageFaultVector = 14;
    private const long MostInstructions = 2_000_000;
    private const ulong CodeEnd = Rom + 0x1000;

    private readonly Hypervisor _hypervisor;
    private readonly byte* _memory;
    private readonly SpecialInstructions _specials;
    private readonly HashSet<ulong> _executed = [];
    private readonly Translations _translations;
    private readonly List<RemapCost> _phases = [];
    private readonly IReadOnlyDictionary<ulong, string> _marks;
    private readonly int _period;
    private long _instructions;
    private long _traps;
    private long _hypercalls;
    private long _hypercallsInInterrupts;
    private long _nextTick;
    private int _ticksLeft;
    private int _pending;
    private bool _isShadowed; // the instruction behind sti is not interrupted
    private bool _isUser;
    private bool _hasEnded;
    private ulong _interruptTable;
    private string? _error;
    private ulong? _fault;
    private bool _faultIsWrite;
    private bool _interrupt;
    private Special _special;
    private (long, long)? _phase;

    /// <summary>Loads a guest into a machine.</summary>
    /// <param name="image">The guest.</param>
    /// <param name="text">Its code, patched or not.</param>
    /// <param name="hypervisor">What it runs on.</param>
    /// <param name="operations">The backend whose functions the table of operations holds.</param>
    /// <param name="ticks">How often the timer ticks.</param>
    /// <param name="period">Instructions from tick to tick.</param>
    public GuestMonitor(
        GuestImage image, CodeImage text, Hypervisor hypervisor, PvPatch.Mechanisms.Backend operations, int ticks = 24, int period = 2000)
    {
        Word = image.Word;
        _hypervisor = hypervisor;
        _period = period;
        _nextTick = period;
        _ticksLeft = ticks;
        _memory = (byte*)NativeMemory.AlignedAlloc(Size, EmulatedCpu.PageSize);
        Memory.Clear();
        image.Load(Memory, text, operations, hypervisor.ExitKinds(image.Bitness), ticks);
        _specials = new SpecialInstructions(image.Bitness, _memory, (int)Text, (int)CodeEnd);
        _marks = new Dictionary<ulong, string>
        {
            [image.Functions["remap"].Value] = "remap", [image.Functions["remap.end"].Value] = "end", [image.Functions["switch"].Value] = "switch",
            [image.Functions["switch.end"].Value] = "end", [image.Functions["panic"].Value] = "panic", [image.Functions["bug"].Value] = "bug",
        };
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

    /// <summary>Bytes of a word.</summary>
    public int Word { get; }

    /// <summary>The guest's memory.</summary>
    public Span<byte> Memory => new(_memory, Size);

    public Costs Costs => new(_instructions, _traps, _hypercalls);

    /// <summary>Hypercalls of each remap and context switch, without those of interrupts that came in between.</summary>
    public IReadOnlyList<RemapCost> Phases => _phases;

    public string Console
    {
        get
        {
            ReadOnlySpan<byte> text = Memory[(int)GuestMemory.Console..];
            return System.Text.Encoding.ASCII.GetString(text[..text.IndexOf((byte)0)]);
        }
    }

    /// <summary>All page tables there may be.</summary>
    public ReadOnlySpan<byte> PageTables => Memory.Slice((int)Tables, TablesSize);

    /// <summary>Whether an instruction at an address was executed.</summary>
    public bool WasExecuted(ulong address) => _executed.Contains(address);

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
                throw new GuestException($"{error} (instruction {_instructions}, at 0x{Cpu[CpuRegister.Rip]:x})");
            }

            if (stop == CpuStop.Access)
            {
                RaisePageFault();
            }
            else if (_interrupt)
            {
                _interrupt = false;
                _pending--;
                _hypervisor.ShowPending(_pending > 0);
                Deliver(TimerVector);
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

    /// <summary>Uses an interrupt table: the operand of lidt is at an address.</summary>
    public void UseInterruptTable(ulong operand) => _interruptTable = ReadWord(operand + 2);

    /// <summary>Has the guest wait for an interrupt.</summary>
    public void Wait()
    {
        if (_pending > 0)
        {
            return;
        }

        if (_ticksLeft == 0)
        {
            throw new GuestException($"the guest waits for an interrupt, and none will come (instruction {_instructions})");
        }

        _nextTick = _instructions;
        CountTick();
    }

    /// <summary>Return from an interrupt: takes a frame off the stack.</summary>
    public void ReturnFromInterrupt()
    {
        ulong sp = Cpu[CpuRegister.Rsp];
        ulong ip = Pop(ref sp);
        bool toUser = (Pop(ref sp) & 3) == 3;
        ulong flags = Pop(ref sp);
        if (toUser || Word == 8)
        {
            sp = ReadWord(sp);
        }

        Cpu[CpuRegister.Rsp] = sp;
        Resume(ip, flags, toUser);
    }

    /// <summary>Goes on at an address with other flags, perhaps in user mode.</summary>
    public void Resume(ulong ip, ulong flags, bool isUser)
    {
        Cpu[CpuRegister.Rip] = ip;
        Cpu[CpuRegister.Flags] = flags & ~(ulong)InterruptFlag;
        _hypervisor.InterruptFlag = (flags & InterruptFlag) != 0;
        _isUser = isUser;
    }

    /// <summary>The way that sysexit takes.</summary>
    public void ExitToUser()
    {
        Cpu[CpuRegister.Rsp] = Cpu[CpuRegister.Rcx];
        Cpu[CpuRegister.Rip] = Cpu[CpuRegister.Rdx];
        _isUser = true;
    }

    /// <summary>Pops a word off a stack.</summary>
    public ulong Pop(ref ulong sp)
    {
        ulong value = ReadWord(sp);
        sp += (ulong)Word;
        return value;
    }

    bool ICpuEvents.BeforeInstruction(ulong address)
    {
        if (_ticksLeft > 0 && _instructions >= _nextTick)
        {
            CountTick();
        }

        if (_pending > 0 && !_isShadowed && _hypervisor.InterruptFlag)
        {
            _interrupt = true;
            return false;
        }

        _isShadowed = false;
        if (address is < Text or >= CodeEnd)
        {
            return Fail($"the guest runs at 0x{address:x}, where it has no code");
        }

        if (++_instructions > MostInstructions)
        {
            return Fail($"the guest does not end in {MostInstructions} instructions");
        }

        _executed.Add(address);
        if (_marks.TryGetValue(address, out string? mark) && !Note(mark))
        {
            return false;
        }

        Special special = _specials.At(address);
        return special == Special.None || Consider(special, address);
    }

    bool ICpuEvents.WatchedWrite(ulong address)
    {
        switch (_hypervisor.JudgeTableWrite())
        {
            case Verdict.Execute:
                return true;
            case Verdict.Trap:
                _traps++;
                return true;
            default:
                return Fail($"{_hypervisor.Name}: the guest writes the page table at 0x{address:x} itself, which is the hypervisor's to do");
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

    private void CountTick()
    {
        _pending++;
        _ticksLeft--;
        _nextTick += _period;
        _hypervisor.ShowPending(true);
    }

    private bool Note(string mark)
    {
        switch (mark)
        {
            case "panic":
                return Fail($"the guest stopped itself: {_hypervisor.Name}'s answer to its last call can't be");
            case "bug":
                return Fail("the guest came to an operation that its backend does not have");
            case "end":
                if (_phase is (long all, long inInterrupts))
                {
                    _phases[^1] = _phases[^1] with
                    {
                        Hypercalls = _hypercalls - all - (_hypercallsInInterrupts - inInterrupts),
                    };
                    _phase = null;
                }

                return true;
            default:
                _phases.Add(new RemapCost(mark == "remap", 0));
                _phase = (_hypercalls, _hypercallsInInterrupts);
                return true;
        }
    }

    // Counts what an instruction costs. What the processor does not do by itself stops it.
    private bool Consider(Special special, ulong address)
    {
        bool isRom = address >= Rom;
        Verdict verdict = _isUser || (isRom && special != Special.Out) ? Verdict.Execute : _hypervisor.Judge(special);
        switch (verdict)
        {
            case Verdict.Refuse:
                return Fail($"{_hypervisor.Name}: a guest may not execute {special} ({_specials.TextAt(address)} at 0x{address:x})");
            case Verdict.Trap:
                _traps++;
                break;
            case Verdict.Hypercall:
                _hypercalls++;
                if (ReadWord(InInterrupt) != 0)
                {
                    _hypercallsInInterrupts++;
                }

                break;
        }

        if (_isUser && special is Special.Syscall && _hypervisor.SystemCallsTrap)
        {
            _traps++;
        }

        _isShadowed = special == Special.Sti;
        _special = special;
        return special is Special.Cli or Special.Sti or Special.Flags or Special.SwapGs or Special.ReadControl or Special.Clts or Special.Wbinvd;
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
                Cpu[CpuRegister.Rax] = (uint)_instructions;
                Cpu[CpuRegister.Rdx] = (ulong)_instructions >> 32;
                break;
            case Special.WriteCr3:
                _hypervisor.Cr3 = Cpu[_specials.OperandAt(at)];
                FlushTranslations();
                break;
            case Special.FlushPage:
                _translations.Flush(Cpu[_specials.OperandAt(at)]);
                break;
            case Special.LoadIdt:
                UseInterruptTable(Cpu[_specials.OperandAt(at)]);
                break;
            case Special.Halt when _hypervisor.InterruptFlag:
                Wait();
                break;
            case Special.Halt:
                End();
                break;
            case Special.InterruptReturn:
                ReturnFromInterrupt();
                break;
            case Special.SysExit:
                ExitToUser();
                break;
            case Special.SysRet:
                Resume(Cpu[CpuRegister.Rcx], Cpu[CpuRegister.R11], isUser: true);
                break;
            case Special.Syscall when _isUser:
                Cpu[CpuRegister.Rcx] = next;
                Cpu[CpuRegister.R11] = SavedFlags();
                Resume(HandlerOf(SystemCallVector), 2, isUser: false);
                break;
            case Special.InterruptCall when _isUser:
                Deliver(SystemCallVector);
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

        _instructions--; // it will be executed again
        _hypervisor.SetFaultAddress(address);
        Deliver(PageFaultVector, _faultIsWrite ? 2u : 0u);
    }

    private void Deliver(int vector, uint? errorCode = null)
    {
        ulong flags = SavedFlags();
        ulong old = Cpu[CpuRegister.Rsp];
        ulong sp = (_isUser ? _hypervisor.StackPointer0 : old) & (Word == 8 ? ~15UL : ~0UL);
        if (_isUser || Word == 8)
        {
            Push(ref sp, _isUser ? (ulong)UserData : KernelData);
            Push(ref sp, old);
        }

        Push(ref sp, flags);
        Push(ref sp, _isUser ? (ulong)UserCode : KernelCode);
        Push(ref sp, Cpu[CpuRegister.Rip]);
        if (errorCode is uint code)
        {
            Push(ref sp, code);
        }

        Cpu[CpuRegister.Rsp] = sp;
        Resume(HandlerOf(vector), 2, isUser: false);
    }

    private ulong SavedFlags() =>
        (Cpu[CpuRegister.Flags] & ~(ulong)InterruptFlag) | (_hypervisor.InterruptFlag ? (ulong)InterruptFlag : 0);

    private ulong HandlerOf(int vector)
    {
        if (_interruptTable == 0)
        {
            throw new GuestException($"vector {vector} is raised before the guest has an interrupt table");
        }

        ulong gate = _interruptTable + (ulong)(vector * Word * 2);
        return (Read32(gate) & 0xffff) | (Read32(gate + 4) & 0xffff0000);
    }

    private void Push(ref ulong sp, ulong value)
    {
        sp -= (ulong)Word;
        WriteWord(sp, value);
    }

    private bool Fail(string error)
    {
        _error = error;
        return false;
    }

    private static ulong Checked(ulong address) =>
        address <= Size - 8 ? address : throw new GuestException($"0x{address:x} is not in the guest's memory");
}

/// <summary>Hypercalls that a remap of 32 pages or a context switch took.</summary>
internal readonly record struct RemapCost(bool IsRemap, long Hypercalls);
