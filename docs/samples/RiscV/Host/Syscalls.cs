using System.Text;

namespace RiscV.Host;

/// <summary>As much of Linux as a program without a C library needs. Number in a7, arguments from a0 on, result in a0.</summary>
internal sealed unsafe class Syscalls
{
    private const int A0 = 10;
    private const int A7 = 17;
    private const ulong Write = 64;
    private const ulong Exit = 93;
    private const ulong ExitGroup = 94;
    private const ulong Brk = 214;
    private const ulong BadAddress = unchecked((ulong)-14); // EFAULT
    private const ulong NotImplemented = unchecked((ulong)-38); // ENOSYS
    private const int OutputLimit = 1 << 20;

    private readonly GuestMemory _memory;
    private readonly ulong _heap;
    private readonly StringBuilder _output = new();
    private ulong _break;

    /// <summary>Makes the calls of one program.</summary>
    /// <param name="memory">Its memory.</param>
    /// <param name="heap">Where its heap begins.</param>
    public Syscalls(GuestMemory memory, ulong heap)
    {
        _memory = memory;
        _heap = heap;
        _break = heap;
    }

    public string Output => _output.ToString();

    public int ExitCode { get; private set; }

    /// <summary>Does the call the guest asks for. Whether it was exit.</summary>
    public bool Handle(CpuState* cpu)
    {
        ulong* x = cpu->X;
        switch (x[A7])
        {
            case Exit or ExitGroup:
                ExitCode = (int)x[A0];
                return true;
            case Write:
                x[A0] = WriteText(x[A0 + 1], x[A0 + 2]);
                return false;
            case Brk:
                // The stack comes down from the end of RAM: the heap has what is below the upper quarter.
                _break = x[A0] >= _heap && x[A0] <= _memory.RamStart + _memory.RamSize / 4 * 3 ? x[A0] : _break;
                x[A0] = _break;
                return false;
            default:
                x[A0] = NotImplemented;
                return false;
        }
    }

    private ulong WriteText(ulong address, ulong length)
    {
        if (!_memory.TryGetSpan(address, length, out Span<byte> text))
        {
            return BadAddress;
        }

        if (_output.Length < OutputLimit)
        {
            _output.Append(Encoding.UTF8.GetString(text));
        }

        return length;
    }
}
