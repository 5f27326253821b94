using System.Runtime.InteropServices;

namespace PvPatch.Live.Platform;

/// <summary>
/// The same memory at two addresses: one it runs at, one it is written through. Reserved whole by a platform, committed piece by piece. A
/// call that reads or writes the memory counts itself in (<see cref="SafeHandle.DangerousAddRef"/>); memory given back meanwhile is
/// unmapped when the last one is out.
/// </summary>
/// <remarks>
/// A mapping that nobody gave back and nobody refers to loses what only a patcher needs, write view and descriptor, to the finalizer. Its
/// code stays mapped: a thread may be running it although no object refers to the arena any more.
/// </remarks>
internal sealed unsafe class CodeMapping : SafeHandle
{
    /// <summary>Commits are multiples of this many bytes: the size of a page on x86-64.</summary>
    public const int PageSize = 4096;

    private readonly Action<CodeMapping, bool> _release;
    private volatile bool _givenBack;

    /// <summary>Holds memory that a platform has reserved.</summary>
    /// <param name="run">The first byte, where executors see it.</param>
    /// <param name="write">The first byte, where the patcher writes it; the same where run and write view are one.</param>
    /// <param name="size">Bytes reserved.</param>
    /// <param name="section">The platform's handle of the memory behind both views.</param>
    /// <param name="release">Gives the write view and the section back to the system, and the code too where it is told so.</param>
    public CodeMapping(void* run, void* write, long size, nint section, Action<CodeMapping, bool> release)
        : base(0, ownsHandle: true)
    {
        Run = (ulong)run;
        Write = (byte*)write;
        Size = size;
        Section = section;
        _release = release;
        SetHandle((nint)run);
    }

    /// <summary>The first byte, where executors see it.</summary>
    public VirtualAddress Run { get; }

    /// <summary>The first byte, where the patcher writes it.</summary>
    public byte* Write { get; }

    /// <summary>Bytes reserved.</summary>
    public long Size { get; }

    /// <summary>The platform's handle of the memory behind both views.</summary>
    public nint Section { get; }

    /// <summary>Whether run and write view are one.</summary>
    public bool IsWritableAndExecutable => (ulong)Write == Run.Value;

    public override bool IsInvalid => handle == 0;

    /// <summary>Whether the memory was given back. It may be mapped a little longer, for those who use it.</summary>
    public bool IsGivenBack => _givenBack;

    /// <summary>Gives the memory back to the system as soon as nobody uses it.</summary>
    public void GiveBack()
    {
        _givenBack = true;
        Dispose();
    }

    protected override bool ReleaseHandle()
    {
        _release(this, _givenBack);
        return true;
    }
}
