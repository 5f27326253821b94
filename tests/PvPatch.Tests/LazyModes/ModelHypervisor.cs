using PvPatch.LazyModes;

namespace PvPatch.Tests.LazyModes;

/// <summary>A task of the model.</summary>
internal sealed class ModelTask
{
    public LazyMode Parked { get; set; }

    public int Levels { get; set; }
}

/// <summary>The hypervisor of the model, and its log. What it does with its n-th batch is a function of n.</summary>
internal sealed class ModelHypervisor(Func<int, HypervisorMood> moods)
{
    private int _batches;

    public List<string> Log { get; } = [];

    public void Tell(LazyPolicy policy, LazyMode mode)
    {
        if (policy.TellsMode)
        {
            Log.Add($"mode {mode}");
        }
    }

    public (int Made, string? Failed) Make(FlushReason reason, TestCall[] calls)
    {
        int made = 0;
        string? failed = null;
        do
        {
            HypervisorMood mood = moods(_batches++);
            Log.Add($"{reason}: {string.Join(' ', calls[made..])}".TrimEnd());
            int take = mood.Takes(calls.Length - made);
            made += take;
            if (mood.Throws)
            {
                failed = DiagnosticCodes.LazySinkFailed;
            }
            else if (take == 0 && made < calls.Length)
            {
                failed = DiagnosticCodes.LazySinkAnswer;
            }
        }
        while (made < calls.Length && failed is null);

        foreach (TestCall call in calls[..made])
        {
            if (Result(call) < 0)
            {
                Log.Add($"failed {call} {Result(call)}");
            }
        }

        return (made, failed);
    }

    public static long Result(TestCall call) => call.Id % 7 == 3 ? -call.Id : call.Id;
}

/// <summary>What a hypervisor does with a batch: takes so many parts in four of it, then throws or not.</summary>
internal readonly record struct HypervisorMood(int Quarters, bool Throws)
{
    public int Takes(int count) => Quarters == 0 && count > 0 ? 0 : Math.Min(count, (count * Quarters + 3) / 4);
}
