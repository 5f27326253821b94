namespace PvPatch.Live;

/// <summary>
/// A thread that runs generated code, as the host declares it: inside between <see cref="Enter"/> and <see cref="Leave"/>. Islands and
/// blocks are only reused once every executor has been outside, or at a safepoint, since they were given up.
/// </summary>
/// <remarks>
/// One for each thread. Enter and leave together cost some twenty nanoseconds and no interlocked instruction: the patcher pays, with its
/// barrier. While a quiescent batch is under way, <see cref="Enter"/> and <see cref="Safepoint"/> wait for it. An executor whose thread has
/// ended counts as outside, and another thread may enter with it.
/// </remarks>
public sealed unsafe class Executor : IDisposable
{
    private const int LinePair = 128; // two lines: processors fetch the neighbour of a missed line too

    private readonly ExecutorList _list;
    private readonly long[] _memory; // pinned, as long as the executor: a counter given up can still be read
    private readonly long* _counter;
    private readonly delegate* unmanaged[SuppressGCTransition]<ulong, ulong> _swapGsBase; // null where its words are not behind gs
    private ulong _outerGsBase;
    private Stack<ulong>? _innerGsBases; // what nested entries found
    private Thread? _thread;
    private int _depth;
    private bool _disposed;

    internal Executor(ExecutorList list, string name, ExecutorWords? words = null)
    {
        _list = list;
        Name = name;
        Words = words;
        _swapGsBase = words is { Register: null }
            ? (delegate* unmanaged[SuppressGCTransition]<ulong, ulong>)words.Arena.Native.SwapGsBase.Value : null;
        int length = (words?.Length ?? sizeof(long)) + LinePair - 1 & -LinePair;
        _memory = GC.AllocateArray<long>((2 * LinePair + length) / sizeof(long), pinned: true);
        nint start = (nint)System.Runtime.CompilerServices.Unsafe.AsPointer(ref _memory[0]);
        _counter = (long*)(start + LinePair - 1 & -LinePair);
    }

    /// <summary>The name it was registered under, for reports.</summary>
    public string Name { get; }

    /// <summary>Whether its thread is inside generated code.</summary>
    public bool IsInside => (Counter & 1) != 0 && !HasEnded;

    /// <summary>
    /// Where the safepoint counter is: 8 bytes that generated code may add 2 to (<c>add qword [..],2</c>) at a place where it is inside no
    /// site and no body, such as the head of a loop. Does not wait for quiescent batches; only <see cref="Safepoint"/> does.
    /// </summary>
    public VirtualAddress CounterAddress => (ulong)_counter;

    /// <summary>The layout of its words; <see langword="null"/> where it has none.</summary>
    public ExecutorWords? Words { get; }

    /// <summary>
    /// Where its words begin, as long as the executor: what the gs base is while its thread is inside, or what the host loads into the
    /// register it has named. The first is the safepoint counter.
    /// </summary>
    public VirtualAddress WordsAddress => CounterAddress;

    internal long Counter
    {
        get
        {
            long counter = Volatile.Read(ref *_counter);
            GC.KeepAlive(_memory);
            return counter;
        }
    }

    /// <summary>Whether the thread that entered last has ended: then it is in no code, whatever it declared.</summary>
    internal bool HasEnded => _thread is { IsAlive: false };

    internal bool IsInsideOnThisThread => ReferenceEquals(_thread, Thread.CurrentThread) && _depth > 0;

    /// <summary>Where one of its words is: for C#, and for other threads.</summary>
    /// <param name="word">A word of its layout.</param>
    /// <returns>The address, a multiple of the word's size, as long as the executor.</returns>
    /// <exception cref="ArgumentException">It has no such word.</exception>
    public VirtualAddress AddressOf(ExecutorWord word) =>
        WordsAddress + (Words ?? throw new ArgumentException($"executor {Name} has no words", nameof(word))).OffsetOf(word);

    /// <summary>
    /// Declares that this thread is about to enter generated code, and sets its gs base where the executor's words are behind that. May be
    /// nested, for helpers that enter again.
    /// </summary>
    /// <exception cref="PatchException">
    /// Another thread is inside with this executor (PV8007); the arena was disposed of (PV8004).
    /// </exception>
    /// <exception cref="ObjectDisposedException">The executor was disposed of.</exception>
    public void Enter()
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        Thread thread = Thread.CurrentThread;
        if (_depth != 0 && !ReferenceEquals(_thread, thread))
        {
            TakeOver();
        }

        if (_depth == 0)
        {
            if (!ReferenceEquals(_thread, thread))
            {
                _thread = thread;
            }

            while (true)
            {
                Volatile.Write(ref *_counter, *_counter + 1);

                // The patcher closes the gate, runs its barrier, then reads the counter: either it sees this thread inside, or this thread
                // sees the gate. The barrier stands for the fence that is missing here.
                if (!_list.GateIsClosed)
                {
                    break;
                }

                Volatile.Write(ref *_counter, *_counter + 1);
                _list.WaitForGate(this);
            }
        }

        if (_swapGsBase is not null)
        {
            EnterGsBase();
        }

        _depth++;
    }

    /// <summary>Declares that this thread has come back from generated code, and gives it its gs base back.</summary>
    /// <exception cref="PatchException">It is not inside, or another thread is (PV8007).</exception>
    public void Leave()
    {
        if (_depth == 0 || !ReferenceEquals(_thread, Thread.CurrentThread))
        {
            throw Misuse($"executor {Name} is not inside on this thread");
        }

        if (_swapGsBase is not null)
        {
            _ = _swapGsBase(_depth == 1 ? _outerGsBase : _innerGsBases!.Pop());
        }

        if (--_depth == 0)
        {
            Volatile.Write(ref *_counter, *_counter + 1);
        }
    }

    /// <summary>
    /// Declares that this thread, between <see cref="Enter"/> and <see cref="Leave"/>, is outside all generated code just now and will not
    /// return into any: for a host's own dispatch loop. Makes the links that were requested (<see cref="LivePatcher.RequestLink(SiteLink)"/>),
    /// and waits while a quiescent batch is under way. Does nothing outside, and nothing where entries are nested.
    /// </summary>
    /// <exception cref="PatchException">Another thread is inside with this executor (PV8007), which may be in any code.</exception>
    public void Safepoint()
    {
        if (_depth == 0)
        {
            return;
        }

        if (!ReferenceEquals(_thread, Thread.CurrentThread))
        {
            throw Misuse($"a safepoint of executor {Name} is declared by a thread that is not inside with it");
        }

        if (_depth != 1)
        {
            return;
        }

        if (_list.GateIsClosed || _list.HasRequests)
        {
            Leave();
            if (_list.HasRequests)
            {
                _list.ApplyRequests();
            }

            Enter();
            return;
        }

        Volatile.Write(ref *_counter, *_counter + 2);
    }

    /// <summary>Takes the executor off the list.</summary>
    /// <exception cref="PatchException">Its thread is inside generated code (PV8005).</exception>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        if (IsInside)
        {
            throw new PatchException(PatchDiagnostic.Error(
                DiagnosticCodes.ArenaInUse, $"executor {Name} is given up while its thread is inside generated code") with
            {
                Help = "Call Leave first, on that thread.",
            });
        }

        _disposed = true;
        _list.Remove(this);
    }

    /// <summary>
    /// Sets the gs base. Another executor may have set it since this one was entered first: each entry keeps what it found.
    /// </summary>
    private void EnterGsBase()
    {
        if (_depth == 0)
        {
            _outerGsBase = _swapGsBase((ulong)_counter);
            return;
        }

        (_innerGsBases ??= new()).EnsureCapacity(_depth); // before anything is set: it may fail
        _innerGsBases.Push(_swapGsBase((ulong)_counter));
    }

    /// <summary>Makes an executor free whose thread ended inside.</summary>
    private void TakeOver()
    {
        if (!HasEnded)
        {
            throw Misuse($"executor {Name} is inside on another thread");
        }

        _depth = 0;
        _innerGsBases?.Clear();
        Volatile.Write(ref *_counter, *_counter + 1);
    }

    internal static PatchException Misuse(string message) => new(PatchDiagnostic.Error(DiagnosticCodes.ExecutorMisuse, message) with
    {
        Help = "Every thread that runs generated code needs an executor of its own; enter and leave on that thread, in pairs.",
    });
}
