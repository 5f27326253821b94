using System.Numerics;
using System.Runtime.InteropServices;

namespace RiscV.Host;

/// <summary>Why an engine came back to its caller.</summary>
internal enum StopReason
{
    None,

    /// <summary>Fewer instructions are left of the allowance than the next block has.</summary>
    OutOfTicks,

    /// <summary>The translated code has come to a place that is not translated yet; never seen outside the translator.</summary>
    Untranslated,

    /// <summary>The guest says that it has written code (fence.i); never seen outside the engines.</summary>
    CodeChanged,

    Ecall,
    Ebreak,
    Illegal,
    FetchFault,
    FetchMisaligned,
    LoadFault,
    LoadMisaligned,
    StoreFault,
    StoreMisaligned,

    /// <summary>The guest called exit.</summary>
    Exited,
}

/// <summary>
/// The guest's processor, in native memory: interpreter, generated code and C# helpers all work on this one. The order is part of the
/// generated code: what it uses most comes first, where a displacement has one byte. Behind it in memory are the translator's links (<see
/// cref="Translator.LinkTable"/>), eight bytes for each word of code.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct CpuState
{
    /// <summary>Where the interpreter's writes to x0 go, so that no handler has to ask whether its destination is x0.</summary>
    public const int Discard = 32;

    public const int CounterCount = 32;

    /// <summary>
    /// Instructions the guest may still execute. Generated code subtracts a block's at its head and leaves when the result is negative.
    /// </summary>
    public long TicksLeft;

    public fixed ulong X[33];

    /// <summary>The next instruction, or the one that stopped; while generated code runs, whatever it was when that was entered.</summary>
    public ulong Pc;

    public StopReason Stop;

    /// <summary>The data address of a load or store that stopped.</summary>
    public ulong FaultAddress;

    /// <summary>Return address of the site in which generated code stopped: what says which guest instruction it was.</summary>
    public ulong Site;

    /// <summary>Host address of guest address 0.</summary>
    public byte* Window;

    public ulong RamStart;

    public ulong RamSize;

    /// <summary>The last offset in RAM at which an access of 1, 2, 4 or 8 bytes may begin.</summary>
    public fixed ulong LastOffset[4];

    public ulong CodeStart;

    public ulong CodeWords;

    /// <summary>The translator's: a GCHandle by which C# helpers find it.</summary>
    public nint Engine;

    /// <summary>What the backend <c>profiled</c> counts, by operation.</summary>
    public fixed ulong Counters[CounterCount];
}

/// <summary>Offsets of the fields, as generated code needs them.</summary>
internal static class CpuLayout
{
    private static readonly int s_registers = Offset(nameof(CpuState.X));
    private static readonly int s_counters = Offset(nameof(CpuState.Counters));
    private static readonly int s_lastOffset = Offset(nameof(CpuState.LastOffset));

    public static int TicksLeft { get; } = Offset(nameof(CpuState.TicksLeft));

    public static int Pc { get; } = Offset(nameof(CpuState.Pc));

    public static int Stop { get; } = Offset(nameof(CpuState.Stop));

    public static int FaultAddress { get; } = Offset(nameof(CpuState.FaultAddress));

    public static int Site { get; } = Offset(nameof(CpuState.Site));

    public static int Window { get; } = Offset(nameof(CpuState.Window));

    public static int RamStart { get; } = Offset(nameof(CpuState.RamStart));

    public static int CodeStart { get; } = Offset(nameof(CpuState.CodeStart));

    public static int CodeWords { get; } = Offset(nameof(CpuState.CodeWords));

    public static unsafe int Links { get; } = sizeof(CpuState);

    public static int X(int register) => s_registers + register * sizeof(ulong);

    public static int LastOffset(int width) => s_lastOffset + BitOperations.Log2((uint)width) * sizeof(ulong);

    public static int Counter(int number) => s_counters + number * sizeof(ulong);

    private static int Offset(string field) => (int)Marshal.OffsetOf<CpuState>(field);
}
