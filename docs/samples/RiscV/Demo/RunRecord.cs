using System.Diagnostics;
using System.Security.Cryptography;
using RiscV.Host;

namespace RiscV.Demo;

/// <summary>All that a run leaves behind. Two runs are equal if everything but their times is.</summary>
internal sealed record RunRecord(StopReason Stop, int ExitCode, string Output, long Instructions, string Registers, string Memory)
{
    public TimeSpan Time { get; init; }

    /// <summary>Lets an engine execute a program.</summary>
    /// <param name="guest">The program.</param>
    /// <param name="engine">The engine.</param>
    /// <param name="ticks">Instructions it may execute.</param>
    /// <param name="clock">What its time is measured by; the time of day where <see langword="null"/>.</param>
    public static unsafe RunRecord Of(Guest guest, IEngine engine, long ticks = long.MaxValue, Func<TimeSpan>? clock = null)
    {
        clock ??= static () => Stopwatch.GetElapsedTime(0);
        TimeSpan start = clock();
        StopReason stop = guest.Run(engine, ticks);
        TimeSpan time = clock() - start;
        string registers = string.Join(' ', Enumerable.Range(0, 32).Select(i => $"x{i}={guest.Cpu->X[i]:x}")) + $" pc={guest.Cpu->Pc:x}";
        string memory = Convert.ToHexString(SHA256.HashData(guest.Memory.Ram));
        return new RunRecord(stop, guest.ExitCode, guest.Output, guest.Instructions, registers, memory) { Time = time };
    }

    public bool Equals(RunRecord? other) =>
        other is not null && Stop == other.Stop && ExitCode == other.ExitCode && Output == other.Output
        && Instructions == other.Instructions && Registers == other.Registers && Memory == other.Memory;

    public override int GetHashCode() => HashCode.Combine(Stop, ExitCode, Instructions, Memory);
}
