using System.Runtime.CompilerServices;
using PvPatch.Live.Platform;

namespace PvPatch.Live;

/// <summary>
/// An arena's bytes: code from the lower end up, slots at the upper end, both committed as they grow. The only class that turns a run
/// address into one that can be written. Safe for several threads.
/// </summary>
internal sealed unsafe class ArenaMemory : IDisposable
{
    /// <summary>Readable bytes kept behind every piece of code, so that a site at its end can be read as one vector.</summary>
    public const int Slack = 16;

    private const int PageSize = CodeMapping.PageSize;
    private const long CommitStep = 1 << 18;

    private readonly Lock _lock = new();
    private readonly LivePlatform _platform;
    private readonly CodeMapping _mapping;
    private readonly ArenaSpace _code;
    private readonly ArenaSpace _data;
    private readonly long _dataStart;
    private long _codeCommitted;
    private long _dataCommitted;
    private long _everCode; // nothing from here on was ever run
    private bool _reused; // a stub was placed where other code stood, and no barrier was run since

    public ArenaMemory(LivePlatform platform, CodeMapping mapping)
    {
        _platform = platform;
        _mapping = mapping;

        // For slots one part in 64, which is 131072 of them in 64 MiB; of a small arena one in 16, up to 64 KiB.
        long data = Math.Max(mapping.Size / 64, Math.Min(mapping.Size / 16, 1 << 16)) / PageSize * PageSize;
        data = Math.Clamp(data, PageSize, 4L << 20);
        _dataStart = mapping.Size - data;
        _code = new ArenaSpace(0, _dataStart);
        _data = new ArenaSpace(_dataStart, mapping.Size);
    }

    public VirtualAddress Start => _mapping.Run;

    public long Size => _mapping.Size;

    public bool IsWritableAndExecutable => _mapping.IsWritableAndExecutable;

    public bool IsDisposed => _mapping.IsGivenBack;

    public long Used
    {
        get
        {
            lock (_lock)
            {
                return _code.Used + _data.Used;
            }
        }
    }

    public long Committed
    {
        get
        {
            lock (_lock)
            {
                return _codeCommitted + _dataCommitted;
            }
        }
    }

    public bool Contains(VirtualAddress address, long length) =>
        address >= Start && length >= 0 && (ulong)length <= (ulong)Size && address.Value - Start.Value <= (ulong)(Size - length);

    /// <summary>Whether bytes are code that the system has been asked for, so that they can be read.</summary>
    public bool IsCommittedCode(VirtualAddress address, long length)
    {
        lock (_lock)
        {
            return Contains(address, length) && address - Start + length <= _codeCommitted;
        }
    }

    /// <summary>Whether an address is code's that is in use: not of memory that was given back, nor of what nobody took.</summary>
    public bool IsCodeInUse(VirtualAddress address)
    {
        lock (_lock)
        {
            return Contains(address, 1) && address - Start < _codeCommitted && _code.IsTaken(address - Start);
        }
    }

    public bool TryTakeCode(long length, int alignment, out VirtualAddress address, out bool reused, out PatchDiagnostic? error) =>
        TryTake(_code, length, alignment, isCode: true, out address, out reused, out error);

    public bool TryTakeData(long length, int alignment, out VirtualAddress address, out PatchDiagnostic? error) =>
        TryTake(_data, length, alignment, isCode: false, out address, out _, out error);

    /// <summary>Gives code bytes back. Nobody may be inside them.</summary>
    /// <param name="address">Where they are.</param>
    /// <param name="length">How many.</param>
    /// <param name="wereRun">Whether a processor may remember them as code.</param>
    public void GiveCode(VirtualAddress address, long length, bool wereRun)
    {
        lock (_lock)
        {
            _everCode = wereRun ? Math.Max(_everCode, address - Start + length) : _everCode;
            _code.Give(address - Start, length);
        }
    }

    /// <summary>Notes that a stub is placed where other code stood: another processor may still be reading ahead there.</summary>
    public void NoteReused() => Volatile.Write(ref _reused, true);

    /// <summary>Whether that was noted and no barrier was run since.</summary>
    public bool HasReused => Volatile.Read(ref _reused);

    /// <summary>
    /// Whether that was noted since the last time this was asked. Who asks runs a barrier before anyone is led to a stub.
    /// </summary>
    public bool TakeReused() => Volatile.Read(ref _reused) && Interlocked.Exchange(ref _reused, false);

    /// <summary>Keeps the memory mapped while a call reads or writes it.</summary>
    /// <exception cref="PatchException">The arena was disposed of (PV8004).</exception>
    public Usage Use()
    {
        try
        {
            bool counted = false;
            if (!IsDisposed)
            {
                _mapping.DangerousAddRef(ref counted);
                return new Usage(_mapping);
            }
        }
        catch (ObjectDisposedException)
        {
            // given back between the two
        }

        throw new PatchException(Disposed());
    }

    /// <summary>
    /// Where a byte of the arena is written. Only while the memory is in use (<see cref="Use"/>) or the patch lock is held.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public byte* WriteView(VirtualAddress address) => _mapping.Write + (address - _mapping.Run);

    /// <summary>Bytes of the arena, to write. The caller has taken them.</summary>
    public Span<byte> Span(VirtualAddress address, int length) => new(WriteView(address), length);

    /// <summary>Gives the memory back, once the calls that use it are over; there are no new ones.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            _mapping.GiveBack();
        }
    }

    private bool TryTake(
        ArenaSpace space, long length, int alignment, bool isCode, out VirtualAddress address, out bool reused, out PatchDiagnostic? error)
    {
        address = default;
        lock (_lock)
        {
            if (IsDisposed)
            {
                reused = false;
                error = Disposed();
                return false;
            }

            reused = false;
            if (!space.TryTake(length, alignment, out long offset))
            {
                error = Full(space, length);
                return false;
            }

            if (!TryCommitTo(offset + length, isCode, out error))
            {
                space.Give(offset, length);
                return false;
            }

            reused = offset < _everCode;
            address = Start + offset;
            return true;
        }
    }

    private bool TryCommitTo(long end, bool isCode, out PatchDiagnostic? error)
    {
        error = null;
        (long start, long limit) = isCode ? (0L, _dataStart) : (_dataStart, Size);
        ref long committed = ref isCode ? ref _codeCommitted : ref _dataCommitted;
        if (end <= start + committed)
        {
            return true;
        }

        long wanted = Math.Min((end - start + CommitStep - 1) / CommitStep * CommitStep, limit - start);
        if (!_platform.TryCommit(_mapping, start + committed, wanted - committed, isCode, out error))
        {
            return false;
        }

        committed = wanted;
        return true;
    }

    public static PatchDiagnostic Disposed() =>
        PatchDiagnostic.Error(
            DiagnosticCodes.ArenaDisposed, "the arena was disposed of") with
        { Help = "Keep the arena as long as code in it is in use." };

    private PatchDiagnostic Full(ArenaSpace space, long length) =>
        PatchDiagnostic.Error(DiagnosticCodes.ArenaFull, $"the arena of {Size} bytes has no room left") with
        {
            Address = Start,
            Found = $"{space.Free} bytes free, perhaps in pieces",
            Expected = $"{length} bytes in one piece",
            Help = "Reserve more (address space costs nothing until it is used), or retire blocks and let executors reach a safepoint.",
        };

    /// <summary>A call that reads or writes the memory, from its begin to its end.</summary>
    public readonly ref struct Usage(CodeMapping mapping)
    {
        public void Dispose() => mapping.DangerousRelease();
    }
}
