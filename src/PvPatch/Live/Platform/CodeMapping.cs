namespace PvPatch.Live.Platform;

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

    /// <summary>Whether run and write view are one.</summary>
    public bool IsWritableAndExecutable => (ulong)Write == Run.Value;

    /// <summary>Makes a stretch usable, zero-filled.</summary>
    /// <param name="offset">From the start; a multiple of the granularity.</param>
    /// <param name="length">Bytes; a multiple of the granularity.</param>
    /// <param name="use">What for.</param>
    /// <param name="error">PV8003 with the system's own words.</param>
    public abstract bool TryCommit(long offset, long length, PageUse use, out PatchDiagnostic? error);

    /// <summary>Gives everything back to the system.</summary>
    public abstract void Dispose();
}
