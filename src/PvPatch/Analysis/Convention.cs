using PvPatch.Machine;

namespace PvPatch.Analysis;

/// <summary>How much work an analysis may do: instructions walked, each time they are.</summary>
internal sealed class WorkLimit(long steps)
{
    private long _left = steps;

    public bool IsReached => _left <= 0;

    public bool Take() => --_left > 0;
}

/// <summary>What a convention means for calls; nothing where none is known.</summary>
internal sealed class Convention
{
    private readonly int[] _arguments;

    public Convention(CallConvention? convention, int bitness)
    {
        IsKnown = convention is not null;
        RegisterSet destroyed = convention is CallConvention known ? known.DestroyedBy(bitness) : RegisterSet.All;
        Destroyed = destroyed.Bits;
        Kept = (~destroyed).Bits;
        _arguments = convention is null ? [] : convention.ArgumentNumbers(bitness).ToArray();
        ulong arguments = 0;
        foreach (int register in _arguments)
        {
            arguments |= RegisterParts.Whole(register);
        }

        Arguments = IsKnown ? arguments | (bitness == 64 ? RegisterParts.Whole(0) : 0) | (
            destroyed.Contains(RegisterSet.Vector) ? RegisterParts.Vector : 0) : RegisterParts.All;
    }

    public bool IsKnown { get; }

    /// <summary>What a call may destroy: bits of <see cref="RegisterSet"/>.</summary>
    public uint Destroyed { get; }

    /// <summary>What a call is taken to keep.</summary>
    public uint Kept { get; }

    /// <summary>
    /// Parts that a function of which nothing is known may read; rax tells a variadic one the number of vector registers.
    /// </summary>
    public ulong Arguments { get; }

    /// <summary>Parts that a function can read at entry: its arguments where they are known, and the stack pointer.</summary>
    public ulong Passed(FunctionFacts? facts) => !IsKnown ? RegisterParts.All
        : facts is { Role: FunctionRole.Ordinary, Reads: { } reads } ? RegisterParts.Of(reads | RegisterSet.Rsp)
        : RegisterParts.All & ~RegisterParts.Flags;

    public int ArgumentCount => _arguments.Length;

    public int Argument(int index) => _arguments[index];

    public int ArgumentOf(int register) => Array.IndexOf(_arguments, register);
}
