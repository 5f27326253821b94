using System.Runtime.ExceptionServices;

namespace PvPatch.LazyModes;

/// <summary>
/// The calls one CPU has put off and the functions that wait for them: queued, and made by the sink in their order. Queueing and flushing
/// allocate nothing.
/// </summary>
/// <remarks>A flush puts the queue in order before it reports what went wrong, so whatever the sink throws, nothing is lost.</remarks>
internal sealed class CallQueue<TCall>
    where TCall : struct
{
    private readonly LazyPolicy _policy;
    private readonly IHypercallSink<TCall> _sink;
    private readonly (Action<object?> Function, object? State)[] _callbacks;
    private int _callbackCount;
    private VirtualAddress _flushedAt;
    private bool _isInside;

    public CallQueue(int cpu, LazyPolicy policy, IHypercallSink<TCall> sink)
    {
        Cpu = cpu;
        _policy = policy;
        _sink = sink;
        _callbacks = new (Action<object?>, object?)[policy.Callbacks];
        Buffer = new CallBuffer<TCall>(policy);
    }

    public int Cpu { get; }

    /// <summary>The calls.</summary>
    public CallBuffer<TCall> Buffer { get; }

    /// <summary>The result of the call that was completed last.</summary>
    public long LastResult { get; private set; }

    /// <summary>Refuses to be used by the sink, or by a function that waited for the flush.</summary>
    public void CheckOutside(VirtualAddress site)
    {
        if (_isInside)
        {
            throw LazyErrors.Reentered(Cpu, site, _flushedAt);
        }
    }

    /// <summary>Queues a call, as part of the last one where that can be. What has no room makes those before it first.</summary>
    public void Add(in TCall call, ReadOnlySpan<byte> arguments, VirtualAddress site, LazyMode mode)
    {
        CheckSize(arguments, site);
        if (_policy.Extends && TryExtend(call, arguments, site))
        {
            return;
        }

        bool isFull = Buffer.IsFull;
        bool fits = Buffer.NextStart + arguments.Length <= _policy.ArgumentBytes;
        if (isFull && fits && _policy.OverflowIsMade && !Buffer.HasOverflow)
        {
            Buffer.Append(call, arguments, site);
            Flush(FlushReason.Full, site, mode);
            return;
        }

        if (isFull || !fits)
        {
            Flush(isFull ? FlushReason.Full : FlushReason.Arguments, site, mode);
        }

        Buffer.Append(call, arguments, site);
    }

    /// <summary>Makes a call at once, before those queued.</summary>
    public void Overtake(in TCall call, ReadOnlySpan<byte> arguments, VirtualAddress site, LazyMode mode)
    {
        CheckSize(arguments, site);
        Buffer.OpenAside(call, arguments, site);
        Enter(site);
        try
        {
            Rethrow(Make(FlushReason.Immediate, mode), site, FlushReason.Immediate);
        }
        finally
        {
            Buffer.Remove(0);
            _isInside = false;
        }
    }

    /// <summary>Has a function run when the calls queued now are made.</summary>
    public void AddCallback(Action<object?> function, object? state, VirtualAddress site, LazyMode mode)
    {
        if (_callbacks.Length == 0)
        {
            throw LazyErrors.NoCallbacks(Cpu, site, _policy);
        }

        if (_callbackCount == _callbacks.Length)
        {
            Flush(FlushReason.Callbacks, site, mode);
        }

        _callbacks[_callbackCount++] = (function, state);
    }

    /// <summary>Makes all calls in their order, then runs the functions that wait for them.</summary>
    public void Flush(FlushReason reason, VirtualAddress site, LazyMode mode, bool evenIfEmpty = false)
    {
        bool calls = Buffer.Count > 0 || evenIfEmpty;
        if (!calls && _callbackCount == 0)
        {
            return;
        }

        Enter(site);
        try
        {
            Exception? error = null;
            if (calls)
            {
                Buffer.OpenAll();
                error = Make(reason, mode);
                Buffer.Remove(Buffer.Next);
            }

            if (Buffer.Count == 0 && RunCallbacks() is Exception failure)
            {
                error ??= failure as PatchException ?? LazyErrors.CallbackFailed(Cpu, site, failure);
            }

            Rethrow(error, site, reason);
        }
        finally
        {
            _isInside = false;
        }
    }

    /// <summary>Tells the sink the CPU's mode.</summary>
    public void Tell(LazyMode mode, VirtualAddress site, FlushReason reason)
    {
        if (!_policy.TellsMode)
        {
            return;
        }

        Enter(site);
        try
        {
            _sink.SetMode(mode);
        }
        catch (Exception exception) when (exception is not PatchException)
        {
            throw LazyErrors.SinkFailed(Cpu, site, reason, Buffer.Count, exception);
        }
        finally
        {
            _isInside = false;
        }
    }

    public void Complete(long result, FlushReason reason)
    {
        if (Buffer.Next == Buffer.End)
        {
            throw LazyErrors.SinkAnswer(Cpu, _flushedAt, reason, "it completed more calls than there are", "one call more", "none");
        }

        Buffer.Complete(result);
        LastResult = result;
    }

    public void CompleteBytes(long bytes, FlushReason reason)
    {
        int whole = Buffer.WholeCalls(bytes, out long taken);
        if (taken != bytes)
        {
            throw LazyErrors.SinkAnswer(
                Cpu, _flushedAt, reason, "the bytes it took are not those of whole calls", $"{bytes} bytes", $"{taken} for {whole} calls");
        }

        for (int i = 0; i < whole; i++)
        {
            Complete(0, reason);
        }
    }

    private void Enter(VirtualAddress site)
    {
        _isInside = true;
        _flushedAt = site;
    }

    private void CheckSize(ReadOnlySpan<byte> arguments, VirtualAddress site)
    {
        if (arguments.Length > _policy.ArgumentBytes)
        {
            throw LazyErrors.Arguments(Cpu, site, arguments.Length, _policy);
        }
    }

    private bool TryExtend(in TCall call, ReadOnlySpan<byte> arguments, VirtualAddress site)
    {
        if (Buffer.Count == 0 || Buffer.ArgumentEnd + arguments.Length > _policy.ArgumentBytes)
        {
            return false;
        }

        Enter(site);
        try
        {
            if (!_sink.TryExtend(ref Buffer.Last, call))
            {
                return false;
            }
        }
        catch (Exception exception) when (exception is not PatchException)
        {
            throw LazyErrors.SinkFailed(Cpu, site, FlushReason.Arguments, Buffer.Count, exception);
        }
        finally
        {
            _isInside = false;
        }

        Buffer.Extend(arguments);
        return true;
    }

    // Has the sink make the calls of the window, then tells it of those that failed. What goes wrong is returned, so that the caller
    // can put the queue in order first.
    private Exception? Make(FlushReason reason, LazyMode mode)
    {
        int start = Buffer.Next;
        Exception? error = null;
        try
        {
            do
            {
                int before = Buffer.Next;
                _sink.Call(new HypercallBatch<TCall>(this, reason, mode));
                if (Buffer.Next == before && before < Buffer.End)
                {
                    error = LazyErrors.SinkAnswer(
                        Cpu, _flushedAt, reason, "it completed none of the calls", "0 calls", $"up to {Buffer.End - before}");
                }
            }
            while (Buffer.Next < Buffer.End && error is null);
        }
        catch (Exception exception)
        {
            error = exception;
        }

        Buffer.Close();
        for (int i = start; i < Buffer.Next; i++)
        {
            Exception? failure = TellFailed(i);
            error ??= failure;
        }

        return error;
    }

    private Exception? TellFailed(int index)
    {
        ref readonly TCall call = ref Buffer.Completed(index, out long result, out VirtualAddress site);
        if (result >= 0)
        {
            return null;
        }

        try
        {
            _sink.Failed(call, result, site);
            return null;
        }
        catch (Exception exception)
        {
            return exception;
        }
    }

    private Exception? RunCallbacks()
    {
        Exception? first = null;
        int count = _callbackCount;
        _callbackCount = 0;
        for (int i = 0; i < count; i++)
        {
            (Action<object?> function, object? state) = _callbacks[i];
            _callbacks[i] = default;
            try
            {
                function(state);
            }
            catch (Exception exception)
            {
                first ??= exception;
            }
        }

        return first;
    }

    private void Rethrow(Exception? error, VirtualAddress site, FlushReason reason)
    {
        if (error is PatchException)
        {
            ExceptionDispatchInfo.Throw(error);
        }

        if (error is not null)
        {
            throw LazyErrors.SinkFailed(Cpu, site, reason, Buffer.Count, error);
        }
    }
}
