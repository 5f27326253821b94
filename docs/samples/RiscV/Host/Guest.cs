using System.Runtime.InteropServices;

namespace RiscV.Host;

/// <summary>
/// A loaded program: its memory, its processor, and the few system calls it has. Engines execute it; what they see and leave is the same.
/// </summary>
internal sealed unsafe class Guest : IDisposable
{
    public const ulong DefaultRamSize = 16 << 20;

    private const int StackPointer = 2;

    private readonly Syscalls _syscalls;

    /// <summary>Loads a program.</summary>
    /// <exception cref="ArgumentException">It does not fit.</exception>
    public Guest(GuestImage image, ulong ramSize = DefaultRamSize)
    {
        ulong start = image.Start & ~0xfffUL;
        if (image.End - start > ramSize / 2 || start + ramSize > 1UL << 32)
        {
            throw new ArgumentException("the program does not fit into RAM", nameof(image));
        }

        Memory = new GuestMemory(start, ramSize);
        foreach (GuestSegment segment in image.Segments)
        {
            Memory.TryGetSpan(segment.Address, segment.Size, out Span<byte> place);
            segment.Bytes.Span.CopyTo(place);
        }

        (ulong codeStart, ulong codeEnd) = image.Code;
        ulong words = (codeEnd - codeStart) / 4;
        Cpu = (CpuState*)NativeMemory.AllocZeroed((nuint)sizeof(CpuState) + (nuint)words * sizeof(ulong));
        Cpu->Window = Memory.Window;
        Cpu->RamStart = start;
        Cpu->RamSize = ramSize;
        for (int i = 0; i < 4; i++)
        {
            Cpu->LastOffset[i] = ramSize - (1UL << i);
        }

        Cpu->CodeStart = codeStart;
        Cpu->CodeWords = words;
        Cpu->Pc = image.Entry;
        Cpu->X[StackPointer] = start + ramSize;
        _syscalls = new Syscalls(Memory, image.End);
    }

    public GuestMemory Memory { get; }

    public CpuState* Cpu { get; }

    /// <summary>What it wrote.</summary>
    public string Output => _syscalls.Output;

    /// <summary>What it gave to exit.</summary>
    public int ExitCode => _syscalls.ExitCode;

    /// <summary>Instructions executed so far.</summary>
    public long Instructions { get; private set; }

    /// <summary>
    /// Lets an engine execute the program, and does its system calls, until it exits, stops or has used up its allowance.
    /// </summary>
    public StopReason Run(IEngine engine, long ticks = long.MaxValue)
    {
        Cpu->TicksLeft = ticks;
        try
        {
            while (true)
            {
                Cpu->Stop = StopReason.None;
                engine.Execute();
                if (Cpu->Stop != StopReason.Ecall)
                {
                    return Cpu->Stop;
                }

                Cpu->TicksLeft--;
                Cpu->Pc += 4;
                if (_syscalls.Handle(Cpu))
                {
                    return StopReason.Exited;
                }
            }
        }
        finally
        {
            Instructions += ticks - Cpu->TicksLeft;
        }
    }

    public void Dispose()
    {
        NativeMemory.Free(Cpu);
        Memory.Dispose();
    }
}

/// <summary>Something that executes the guest.</summary>
internal interface IEngine
{
    /// <summary>
    /// Executes from <see cref="CpuState.Pc"/> on until something stops it. Then Pc is the instruction that stopped, which is not counted
    /// in
    /// <see cref="CpuState.TicksLeft"/>, and everything before it has been done.
    /// </summary>
    public void Execute();
}
