using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;

namespace PvPatch.KernelTests.Harness;

/// <summary>
/// QEMU's gdbstub, as much of gdb's remote protocol as it takes to stop an x86-64 guest at an address and to change what
/// it finds there. A machine that is run by this end must not be run or stopped over QMP too: each end would
/// then see the stops of the other.
/// </summary>
internal sealed class GdbStub : IDisposable
{
    private static readonly TimeSpan s_answerTimeout = TimeSpan.FromSeconds(30);

    private readonly Socket _socket;
    private readonly List<byte> _received = [];

    /// <summary>Takes over the connection; QEMU stops the machine when it is made.</summary>
    public GdbStub(Socket socket)
    {
        _socket = socket;
        _socket.SendTimeout = (int)s_answerTimeout.TotalMilliseconds;
        Ask("?");
    }

    /// <summary>Sets a hardware breakpoint: no byte of the guest's memory changes.</summary>
    public void SetBreakpoint(ulong address)
    {
        Demand($"Z1,{address:x},1");
    }

    public void ClearBreakpoint(ulong address)
    {
        Demand($"z1,{address:x},1");
    }

    /// <summary>All registers of the processor that stopped.</summary>
    public GdbRegisters ReadRegisters()
    {
        return new GdbRegisters(Convert.FromHexString(Ask("g")));
    }

    /// <summary>Sets all registers. The stub takes single ones only after a talk about its features.</summary>
    public void WriteRegisters(GdbRegisters registers)
    {
        Demand($"G{Convert.ToHexStringLower(registers.Bytes)}");
    }

    /// <summary>Reads memory by virtual address, through the page tables of the processor that stopped.</summary>
    public byte[] ReadMemory(ulong address, int length)
    {
        string answer = Ask($"m{address:x},{length:x}");
        return answer.Length == length * 2
            ? Convert.FromHexString(answer)
            : throw new InvalidOperationException($"The gdbstub cannot read {address:x}+{length:x}: {answer}");
    }

    public uint ReadUInt32(ulong address)
    {
        return BinaryPrimitives.ReadUInt32LittleEndian(ReadMemory(address, sizeof(uint)));
    }

    public void WriteUInt32(ulong address, uint value)
    {
        Span<byte> bytes = stackalloc byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, value);
        Demand($"M{address:x},4:{Convert.ToHexStringLower(bytes)}");
    }

    /// <summary>Writes memory by physical address: of QEMU's stub, from 4.1 on.</summary>
    public void WritePhysical(ulong address, ReadOnlySpan<byte> bytes)
    {
        Demand("Qqemu.PhyMemMode:1");
        Demand($"M{address:x},{bytes.Length:x}:{Convert.ToHexStringLower(bytes)}");
        Demand("Qqemu.PhyMemMode:0");
    }

    /// <summary>
    /// Runs the instruction at a breakpoint: the stub stops again at once if the breakpoint stands where it is to continue.
    /// </summary>
    public void StepOver(ulong breakpoint)
    {
        ClearBreakpoint(breakpoint);
        Step();
        SetBreakpoint(breakpoint);
    }

    /// <summary>Runs one instruction of the processor that stopped.</summary>
    public void Step()
    {
        RequireStop(Ask("s"));
    }

    /// <summary>Lets the machine run; the next thing to do is to wait for a stop.</summary>
    public void Continue()
    {
        Send("c");
    }

    /// <summary>Waits for the machine to stop; false if it still runs.</summary>
    public bool StopsWithin(TimeSpan timeout)
    {
        if (TryReceive(timeout) is not { } packet)
        {
            return false;
        }

        RequireStop(packet);
        return true;
    }

    /// <summary>
    /// Stops the running machine. A breakpoint may be quicker: then this is its stop, and the request is lost without a
    /// trace, because a stopped stub passes over that byte.
    /// </summary>
    public void Interrupt()
    {
        Transmit([0x03]);
        if (!StopsWithin(s_answerTimeout))
        {
            throw new IOException("The gdbstub did not stop the machine.");
        }
    }

    public void Dispose()
    {
        _socket.Dispose();
    }

    private static byte Checksum(ReadOnlySpan<byte> body)
    {
        byte sum = 0;
        foreach (byte value in body)
        {
            sum = unchecked((byte)(sum + value));
        }

        return sum;
    }

    private static void RequireStop(string packet)
    {
        // T with details or S without; W and X tell that the program, here QEMU, is at its end.
        if (packet is not ['T' or 'S', ..])
        {
            throw new IOException($"The gdbstub reports '{packet}' in place of a stop.");
        }
    }

    private void Demand(string command)
    {
        string answer = Ask(command);
        if (answer != "OK")
        {
            throw new InvalidOperationException($"The gdbstub refused '{command[..Math.Min(command.Length, 40)]}': '{answer}'");
        }
    }

    private string Ask(string command)
    {
        Send(command);
        return TryReceive(s_answerTimeout) ?? throw new IOException($"The gdbstub did not answer '{command[..1]}'.");
    }

    private void Send(string command)
    {
        // Everything sent here is ASCII without '#', '$', '}' and '*', which would have to be escaped.
        byte[] body = System.Text.Encoding.ASCII.GetBytes(command);
        Transmit([(byte)'$', .. body, (byte)'#', .. System.Text.Encoding.ASCII.GetBytes($"{Checksum(body):x2}")]);
    }

    // QEMU that ends closes the socket at any moment; the kernel tells it as an end, a broken pipe or a reset, as it comes.
    private void Transmit(ReadOnlySpan<byte> bytes)
    {
        try
        {
            _socket.Send(bytes);
        }
        catch (SocketException exception)
        {
            throw new IOException("QEMU closed its gdbstub.", exception);
        }
    }

    private int Receive(byte[] buffer)
    {
        try
        {
            return _socket.Receive(buffer) is > 0 and int count ? count : throw new IOException("QEMU closed its gdbstub.");
        }
        catch (SocketException exception)
        {
            throw new IOException("QEMU closed its gdbstub.", exception);
        }
    }

    private string? TryReceive(TimeSpan timeout)
    {
        Stopwatch clock = Stopwatch.StartNew();
        byte[] buffer = new byte[16 * 1024];
        while (true)
        {
            if (TakePacket() is { } packet)
            {
                // The stub runs the guest only after a command, so this byte never meets a running machine.
                Transmit("+"u8);
                return packet;
            }

            TimeSpan left = timeout - clock.Elapsed;
            if (!_socket.Poll(left > TimeSpan.Zero ? left : TimeSpan.Zero, SelectMode.SelectRead))
            {
                return null;
            }

            int count = Receive(buffer);
            _received.AddRange(buffer.AsSpan(0, count));
        }
    }

    /// <summary>Takes the first whole "$body#sum" out of what came; acknowledgements before it are dropped.</summary>
    private string? TakePacket()
    {
        int start = _received.IndexOf((byte)'$');
        int end = start < 0 ? -1 : _received.IndexOf((byte)'#', start);
        if (end < 0 || _received.Count < end + 3)
        {
            return null;
        }

        byte[] body = [.. _received[(start + 1)..end]];
        string sum = System.Text.Encoding.ASCII.GetString([_received[end + 1], _received[end + 2]]);
        _received.RemoveRange(0, end + 3);
        return byte.TryParse(sum, NumberStyles.HexNumber, null, out byte expected) && expected == Checksum(body)
            ? System.Text.Encoding.ASCII.GetString(body)
            : throw new InvalidDataException($"The gdbstub sent a packet whose sum is not {sum}.");
    }
}
