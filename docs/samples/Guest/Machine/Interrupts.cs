using PvGuest.Hypervisors;
using static PvGuest.Kernel.GuestMemory;

namespace PvGuest.Machine;

/// <summary>
/// What a processor does when it is interrupted and returns, and the timer that interrupts it. Where the interrupt flag is, and where the
/// stack for entries from user mode, the hypervisor knows.
/// </summary>
internal sealed class Interrupts(GuestMonitor monitor, Hypervisor hypervisor, int ticks, int period)
{
    public const int PageFaultVector = 14;
    public const int TimerVector = 0x20;
    public const int SystemCallVector = 0x80;

    private readonly int _word = monitor.Word;
    private long _nextTick = period;
    private int _ticksLeft = ticks;
    private int _pending;
    private bool _looks;
    private ulong _table;

    /// <summary>Whether the processor is in user mode.</summary>
    public bool IsUser { get; private set; }

    /// <summary>
    /// The guest left its own code. A hypervisor that is told of allowed interrupts by memory looks at it then, and at no other time.
    /// </summary>
    public void ComeToHypervisor() => _looks = true;

    /// <summary>Whether a tick is to be delivered now; lets the timer tick first, by the instructions executed.</summary>
    public bool MustDeliver(long instructions)
    {
        if (_ticksLeft > 0 && instructions >= _nextTick)
        {
            Tick();
        }

        bool looks = _looks || hypervisor.SeesInterruptFlag;
        _looks = false;
        return looks && _pending > 0 && hypervisor.InterruptFlag;
    }

    /// <summary>Delivers a tick.</summary>
    public void DeliverTick()
    {
        _pending--;
        hypervisor.ShowPending(_pending > 0);
        Deliver(TimerVector);
    }

    /// <summary>Lets time pass until an interrupt is there.</summary>
    public void Wait()
    {
        if (_pending > 0)
        {
            return;
        }

        if (_ticksLeft == 0)
        {
            throw new GuestException("the guest waits for an interrupt, and none will come");
        }

        _nextTick = monitor.Meter.Total;
        Tick();
    }

    /// <summary>Uses an interrupt table: the operand of lidt is at an address.</summary>
    public void UseTable(ulong operand) => _table = monitor.ReadWord(operand + 2);

    /// <summary>Enters a handler: frame on the stack, interrupts off.</summary>
    public void Deliver(int vector, uint? errorCode = null)
    {
        ulong old = monitor.Cpu[CpuRegister.Rsp];
        ulong sp = (IsUser ? hypervisor.StackPointer0 : old) & (_word == 8 ? ~15UL : ~0UL);
        if (IsUser || _word == 8)
        {
            Push(ref sp, IsUser ? (ulong)UserData : KernelData);
            Push(ref sp, old);
        }

        Push(ref sp, SavedFlags());
        Push(ref sp, IsUser ? (ulong)UserCode : KernelCode);
        Push(ref sp, monitor.Cpu[CpuRegister.Rip]);
        if (errorCode is uint code)
        {
            Push(ref sp, code);
        }

        monitor.Cpu[CpuRegister.Rsp] = sp;
        Resume(HandlerOf(vector), 2, isUser: false);
    }

    /// <summary>What iret does: takes a frame off the stack.</summary>
    public void Return()
    {
        ulong sp = monitor.Cpu[CpuRegister.Rsp];
        ulong ip = Pop(ref sp);
        bool toUser = (Pop(ref sp) & 3) == 3;
        ulong flags = Pop(ref sp);
        if (toUser || _word == 8)
        {
            sp = monitor.ReadWord(sp);
        }

        monitor.Cpu[CpuRegister.Rsp] = sp;
        Resume(ip, flags, toUser);
    }

    /// <summary>What syscall does in user mode.</summary>
    public void EnterSystemCall(ulong next)
    {
        monitor.Cpu[CpuRegister.Rcx] = next;
        monitor.Cpu[CpuRegister.R11] = SavedFlags();
        Resume(HandlerOf(SystemCallVector), 2, isUser: false);
    }

    /// <summary>What sysret does.</summary>
    public void ReturnFromSystemCall() => Resume(monitor.Cpu[CpuRegister.Rcx], monitor.Cpu[CpuRegister.R11], isUser: true);

    /// <summary>What sysexit does.</summary>
    public void ExitToUser()
    {
        monitor.Cpu[CpuRegister.Rsp] = monitor.Cpu[CpuRegister.Rcx];
        monitor.Cpu[CpuRegister.Rip] = monitor.Cpu[CpuRegister.Rdx];
        IsUser = true;
    }

    /// <summary>Pops a word off a stack.</summary>
    public ulong Pop(ref ulong sp)
    {
        ulong value = monitor.ReadWord(sp);
        sp += (ulong)_word;
        return value;
    }

    private void Push(ref ulong sp, ulong value)
    {
        sp -= (ulong)_word;
        monitor.WriteWord(sp, value);
    }

    private void Resume(ulong ip, ulong flags, bool isUser)
    {
        monitor.Cpu[CpuRegister.Rip] = ip;
        monitor.Cpu[CpuRegister.Flags] = flags & ~(ulong)InterruptFlag;
        hypervisor.InterruptFlag = (flags & InterruptFlag) != 0;
        IsUser = isUser;
    }

    private ulong SavedFlags() =>
        (monitor.Cpu[CpuRegister.Flags] & ~(ulong)InterruptFlag) | (hypervisor.InterruptFlag ? (ulong)InterruptFlag : 0);

    private ulong HandlerOf(int vector)
    {
        if (_table == 0)
        {
            throw new GuestException($"vector {vector} is raised before the guest has an interrupt table");
        }

        ulong gate = _table + (ulong)(vector * _word * 2);
        return (monitor.Read32(gate) & 0xffff) | (monitor.Read32(gate + 4) & 0xffff0000);
    }

    private void Tick()
    {
        _pending++;
        _looks = true;
        _ticksLeft--;
        _nextTick += period;
        hypervisor.ShowPending(true);
    }
}
