using System.Runtime.InteropServices;
using static PvPatch.Live.Platform.LinuxNative;

namespace PvPatch.Live.Platform;

/// <summary>
/// A memfd with a read-execute view and a read-write view, the scheme .NET's own W^X uses. Or, where asked for, private pages that are both.
/// </summary>
internal sealed unsafe class LinuxMapping : CodeMapping
{
    private readonly int _file;
    private bool _disposed;

    private LinuxMapping(byte* run, byte* write, long size, int file)
        : base((ulong)run, write, size) => _file = file;

    public static bool TryCreateSingle(byte* run, long size, out CodeMapping? mapping, out PatchDiagnostic? error)
    {
        mapping = new LinuxMapping(run, run, size, -1);
        error = null;
        return true;
    }

    /// <summary>Adds the write view and the memory behind both; gives the run view back where that fails.</summary>
    public static bool TryCreateDual(byte* run, long size, out CodeMapping? mapping, out PatchDiagnostic? error)
    {
        mapping = null;
        error = null;
        int file = memfd_create("pvpatch", MFD_CLOEXEC | MFD_EXEC);
        if (file < 0 && Marshal.GetLastPInvokeError() == EINVAL)
        {
            file = memfd_create("pvpatch", MFD_CLOEXEC);
        }

        if (file < 0)
        {
            error = LinuxPlatform.Refused("a memory file (memfd_create)", Marshal.GetLastPInvokeError(), dualMapped: true);
            _ = munmap(run, (nuint)size);
            return false;
        }

        void* write = MAP_FAILED;
        if (ftruncate(file, size) == 0)
        {
            write = mmap(null, (nuint)size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        }

        if (write == MAP_FAILED)
        {
            error = LinuxPlatform.Refused("the write view of an arena", Marshal.GetLastPInvokeError(), dualMapped: true);
            _ = close(file);
            _ = munmap(run, (nuint)size);
            return false;
        }

        mapping = new LinuxMapping(run, (byte*)write, size, file);
        return true;
    }

    public override bool TryCommit(long offset, long length, PageUse use, out PatchDiagnostic? error)
    {
        void* run = (byte*)Run.Value + offset;
        if (_file < 0)
        {
            int both = PROT_READ | PROT_WRITE | (use == PageUse.Code ? PROT_EXEC : 0);
            return Check(mmap(run, (nuint)length, both, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), "writable and executable memory", dualMapped: false, out error);
        }

        int protection = PROT_READ | (use == PageUse.Code ? PROT_EXEC : 0);
        if (!Check(mmap(run, (nuint)length, protection, MAP_SHARED | MAP_FIXED, _file, offset), "executable memory", dualMapped: true, out error))
        {
            return false;
        }

        void* write = Write + offset;
        if (!Check(mmap(write, (nuint)length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, _file, offset), "the write view of executable memory", dualMapped: true, out error))
        {
            // The run view alone does no harm: it is zeros that nobody enters, and the next commit lays the same pages over it.
            return false;
        }

        // Shared pages stay shared with a child until it executes another program; it has no use for them.
        _ = madvise(run, (nuint)length, MADV_DONTFORK);
        _ = madvise(write, (nuint)length, MADV_DONTFORK);
        return true;
    }

    public override void Dispose()
    {
        if (!_disposed)
        {
            _ = munmap((void*)Run.Value, (nuint)Size);
            Abandon();
        }
    }

    public override void Abandon()
    {
        if (!_disposed && _file >= 0)
        {
            _ = munmap(Write, (nuint)Size);
            _ = close(_file);
        }

        _disposed = true;
    }

    private static bool Check(void* result, string what, bool dualMapped, out PatchDiagnostic? error)
    {
        error = result == MAP_FAILED ? LinuxPlatform.Refused(what, Marshal.GetLastPInvokeError(), dualMapped) : null;
        return error is null;
    }
}
