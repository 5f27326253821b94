using System.Diagnostics;
using System.Security.Cryptography;
using RiscV.Host;

namespace RiscV.Demo;

/// <summary>All that a run leaves behind. Two runs are equal if everything but their times is.</summary>
internal sealed record RunRecord(StopReason Stop, int ExitCode, string Output, long Instructions, string Registers, string Memory)
{
    public TimeSpan Time { get; init; }

    /// <summary>Lets an engine execute a program.</summary>
    public static unsafe RunRecord Of(Guest guest, IEngine engine, long ticks = long.MaxValue)
    {
        long start = Stopwatch.GetTimestamp();
        StopReason stop = guest.Run(engine, ticks);
        TimeSpan time = Stopwatch.GetElapsedTime(start);
        string registers = string.Join(' ', Enumerable.Range(0, 32).Select(i => $"x{i}={guest.Cpu->X[i]:x}")) + $" pc={guest.Cpu->Pc:x}";
        return new RunRecord(stop, guest.ExitCode, guest.Output, guest.Instructions, registers, Convert.ToHexString(SHA256.HashData(guest.Memory.Ram))) { Time = time };
    }

    public bool Equals(RunRecord? other) =>
        other is not null && Stop == other.Stop && ExitCode == other.ExitCode && Output == other.Output && Instructions == other.Instructions
        && Registers == other.Registers && Memory == other.Memory;

    public override int GetHashCode() => HashCode.Combine(Stop, ExitCode, Instructions, Memory);
}
