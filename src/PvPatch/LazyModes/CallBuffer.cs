using System.Runtime.CompilerServices;

namespace PvPatch.LazyModes;

/// <summary>Memory for the calls of one CPU and their arguments, made once, and the window of calls the sink has before it.</summary>
/// <remarks>
/// Calls leave when they are completed, and in no other way:
/// <code>
///   calls      │ a │ b │ c │ d │        a and b are completed, the rest is not:   │ c │ d │
///   arguments  │aaaa│bb│cccccc│d│                                                 │cccccc│d│
/// </code>
/// </remarks>
internal sealed class CallBuffer<TCall>
    where TCall : struct
{
    private readonly LazyPolicy _policy;
    private readonly int _capacity;
    private readonly TCall[] _calls;
    private readonly CallPlace[] _places;
    private readonly long[] _results;
    private readonly byte[] _arguments;

    public CallBuffer(LazyPolicy policy)
    {
        _policy = policy;

        // Two calls more than are queued: the one that finds the queue full, and stays there if it can't be made, and one that goes before
        // those queued. The latter has room of its own for its arguments.
        _capacity = Math.Max(policy.Capacity, 1);
        int calls = _capacity + 2;
        _calls = new TCall[calls];
        _places = new CallPlace[calls];
        _results = new long[calls];
        _arguments = new byte[policy.KeepsOrder ? policy.ArgumentBytes : 2 * policy.ArgumentBytes];
    }

    /// <summary>Number of calls queued.</summary>
    public int Count { get; private set; }

    /// <summary>Where the arguments queued end.</summary>
    public int ArgumentEnd { get; private set; }

    /// <summary>Where arguments of a new call would begin.</summary>
    public int NextStart => (ArgumentEnd + _policy.ArgumentAlignment - 1) & -_policy.ArgumentAlignment;

    public bool IsFull => Count >= _capacity;

    /// <summary>Whether a call that found the queue full is in it, as it could not be made.</summary>
    public bool HasOverflow => Count > _capacity;

    public ref TCall Last => ref _calls[Count - 1];

    /// <summary>First call of the window that is not completed.</summary>
    public int Next { get; private set; }

    /// <summary>End of the window.</summary>
    public int End { get; private set; }

    public ReadOnlySpan<TCall> WindowCalls => _calls.AsSpan(Next, End - Next);

    public void Append(in TCall call, ReadOnlySpan<byte> arguments, VirtualAddress site)
    {
        int start = NextStart;
        _calls[Count] = call;
        _places[Count] = new CallPlace(start, arguments.Length, site);
        arguments.CopyTo(_arguments.AsSpan(start));
        ArgumentEnd = start + arguments.Length;
        Count++;
    }

    /// <summary>Adds arguments to those of the last call, which end where the arguments end.</summary>
    public void Extend(ReadOnlySpan<byte> arguments)
    {
        arguments.CopyTo(_arguments.AsSpan(ArgumentEnd));
        ArgumentEnd += arguments.Length;
        ref CallPlace last = ref _places[Count - 1];
        last = last with { Length = last.Length + arguments.Length };
    }

    /// <summary>
    /// Puts a call behind those queued without queueing it, its arguments behind the space for theirs, and has it alone in the window.
    /// </summary>
    public void OpenAside(in TCall call, ReadOnlySpan<byte> arguments, VirtualAddress site)
    {
        _calls[Count] = call;
        _places[Count] = new CallPlace(_policy.ArgumentBytes, arguments.Length, site);
        arguments.CopyTo(_arguments.AsSpan(_policy.ArgumentBytes));
        Next = Count;
        End = Count + 1;
    }

    /// <summary>Has all calls queued in the window.</summary>
    public void OpenAll()
    {
        Next = 0;
        End = Count;
    }

    /// <summary>Closes the window: no call is left to be completed.</summary>
    public void Close() => End = Next;

    public void Complete(long result) => _results[Next++] = result;

    /// <summary>How many calls of the window the first bytes of their arguments are.</summary>
    /// <param name="bytes">Number of bytes.</param>
    /// <param name="taken">Bytes of those calls: fewer where the bytes end within a call, or there are no more calls.</param>
    public int WholeCalls(long bytes, out long taken)
    {
        taken = 0;
        int index = Next;
        while (index < End && bytes - taken >= _places[index].Length)
        {
            taken += _places[index++].Length;
        }

        return index - Next;
    }

    public CallPlace WindowPlace(int index)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(index, End - Next);
        return _places[Next + index];
    }

    public ReadOnlySpan<byte> WindowArguments(int index)
    {
        CallPlace place = WindowPlace(index);
        return _arguments.AsSpan(place.Start, place.Length);
    }

    /// <summary>A call that was completed, by its index in the queue.</summary>
    public ref readonly TCall Completed(int index, out long result, out VirtualAddress site)
    {
        result = _results[index];
        site = _places[index].Site;
        return ref _calls[index];
    }

    /// <summary>Takes completed calls off the front; what is left moves there, with its arguments.</summary>
    public void Remove(int completed)
    {
        int rest = Count - completed;
        if (rest == 0)
        {
            ArgumentEnd = 0;
        }
        else if (completed > 0)
        {
            int shift = _places[completed].Start;
            _arguments.AsSpan(shift, ArgumentEnd - shift).CopyTo(_arguments);
            ArgumentEnd -= shift;
            for (int i = 0; i < rest; i++)
            {
                _calls[i] = _calls[completed + i];
                CallPlace place = _places[completed + i];
                _places[i] = place with { Start = place.Start - shift };
            }
        }

        if (RuntimeHelpers.IsReferenceOrContainsReferences<TCall>())
        {
            _calls.AsSpan(rest).Clear();
        }

        Count = rest;
        Next = End = 0;
    }
}

/// <summary>Where the arguments of a call lie in the space for them, in bytes, and where it was queued.</summary>
internal readonly record struct CallPlace(int Start, int Length, VirtualAddress Site);
