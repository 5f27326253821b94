using System.Runtime.InteropServices;

namespace PvPatch.Live.Platform;

/// <summary>What an arena asks of the system.</summary>
/// <param name="Near">The address to be near to; <see langword="null"/> where it does not matter.</param>
/// <param name="MustReach">Whether every byte must be in rel32 reach of it, or memory farther away is better than none.</param>
/// <param name="Size">Bytes, a multiple of <see cref="LivePlatform.Granularity"/>.</param>
/// <param name="WritableAndExecutable">One mapping that is both, because the host asked for it by name.</param>
internal readonly record struct MapRequest(VirtualAddress? Near, bool MustReach, long Size, bool WritableAndExecutable);

/// <summary>What a stretch of the arena is for, and so how its run view is protected. The write view is always readable and writable.</summary>
internal enum PageUse
{
    /// <summary>Read and execute.</summary>
    Code,

    /// <summary>Read only: slots are data, and a store next to code makes processors that watch for self-modification throw away their work.</summary>
    Data,
}

/// <summary>The same memory at two addresses: one it runs at, one it is written through. Reserved whole, committed piece by piece.</summary>
internal abstract unsafe class CodeMapping : IDisposable
{
    protected CodeMapping(VirtualAddress run, byte* write, long size)
    {
        Run = run;
        Write = write;
        Size = size;
    }

    /// <summary>The first byte, where executors see it.</summary>
    public VirtualAddress Run { get; }

    /// <summary>The first byte, where the patcher writes it.</summary>
    public byte* Write { get; }

    /// <summary>Bytes reserved.</summary>
    public long Size { get; }

    /// <summary>Commits are multiples of this many bytes: the size of a page on x86-64.</summary>
    public const int PageSize = 4096;

    /// <summary>Whether run and write view are one.</summary>
    public bool IsWritableAndExecutable => (ulong)Write == Run.Value;

    /// <summary>Makes a stretch usable, zero-filled.</summary>
    /// <param name="offset">From the start; a multiple of <see cref="PageSize"/>.</param>
    /// <param name="length">Bytes; a multiple of <see cref="PageSize"/>.</param>
    /// <param name="use">What for.</param>
    /// <param name="error">PV8003 with the system's own words.</param>
    public abstract bool TryCommit(long offset, long length, PageUse use, out PatchDiagnostic? error);

    /// <summary>Gives everything back to the system.</summary>
    public abstract void Dispose();

    /// <summary>
    /// Gives back what only a patcher needs, the write view and the descriptor; the code stays where it is. For a mapping nobody disposed of: a thread may be running
    /// its code although no object refers to the arena any more.
    /// </summary>
    public virtual void Abandon()
    {
    }
}

/// <summary>
/// Keeps a mapping until it is given back and nobody uses it any more: a call that reads or writes the memory counts itself in, and memory given back meanwhile is
/// unmapped when the last one is out. Of a mapping that was never given back the finalizer abandons what can be.
/// </summary>
internal sealed class MappingHandle : SafeHandle
{
    private readonly CodeMapping _mapping;
    private volatile bool _given;

    public MappingHandle(CodeMapping mapping)
        : base(0, ownsHandle: true)
    {
        _mapping = mapping;
        SetHandle((nint)mapping.Run.Value);
    }

    public override bool IsInvalid => handle == 0;

    /// <summary>Whether the mapping was given back. It may be mapped a little longer, for those who use it.</summary>
    public bool IsGivenBack => _given;

    /// <summary>Gives the mapping back as soon as nobody uses it.</summary>
    public void Unmap()
    {
        _given = true;
        Dispose();
    }

    protected override bool ReleaseHandle()
    {
        if (_given)
        {
            _mapping.Dispose();
        }
        else
        {
            _mapping.Abandon();
        }

        return true;
    }
}
