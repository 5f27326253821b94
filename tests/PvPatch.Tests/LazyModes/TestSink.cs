using System.Globalization;
using PvPatch.LazyModes;

namespace PvPatch.Tests.LazyModes;

/// <summary>A call of the tests: those of one array kind grow in place.</summary>
internal readonly record struct TestCall(int Id, bool IsArray = false, int Length = 1)
{
    public override string ToString() => Length == 1 ? $"{Id}" : string.Create(CultureInfo.InvariantCulture, $"{Id}x{Length}");
}

/// <summary>A hypervisor that writes down what it is asked for, and does as told.</summary>
internal sealed class TestSink : IHypercallSink<TestCall>
{
    /// <summary>What came, in order: batches, failures, modes, and what tests add.</summary>
    public List<string> Log { get; } = [];

    /// <summary>What is done with a batch; all of it is completed with <see cref="Result"/> if null.</summary>
    public BatchAction? Action { get; set; }

    /// <summary>The result of each call.</summary>
    public Func<TestCall, long> Result { get; set; } = static _ => 0;

    public Action<LazyMode>? OnMode { get; set; }

    public Action<TestCall>? OnFailed { get; set; }

    public bool TryExtend(ref TestCall last, in TestCall next)
    {
        if (!last.IsArray || !next.IsArray)
        {
            return false;
        }

        last = last with { Length = last.Length + next.Length };
        return true;
    }

    public void Call(HypercallBatch<TestCall> batch)
    {
        Log.Add($"{batch.Reason}: {string.Join(' ', batch.Calls.ToArray())}".TrimEnd());
        if (Action is not null)
        {
            Action(batch);
            return;
        }

        Take(batch, batch.Count);
    }

    public void Failed(in TestCall call, long result, VirtualAddress site)
    {
        Log.Add(string.Create(CultureInfo.InvariantCulture, $"failed {call} {result} {site}"));
        OnFailed?.Invoke(call);
    }

    public void SetMode(LazyMode mode)
    {
        Log.Add($"mode {mode}");
        OnMode?.Invoke(mode);
    }

    /// <summary>Completes the first calls.</summary>
    public void Take(HypercallBatch<TestCall> batch, int count)
    {
        for (int i = 0; i < count; i++)
        {
            batch.Complete(Result(batch.Calls[0]));
        }
    }

    /// <summary>The log since the last time it was asked for.</summary>
    public string[] TakeLog()
    {
        string[] log = [.. Log];
        Log.Clear();
        return log;
    }

    internal delegate void BatchAction(HypercallBatch<TestCall> batch);
}
