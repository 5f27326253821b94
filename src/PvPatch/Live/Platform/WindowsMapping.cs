using static PvPatch.Live.Platform.WindowsNative;

namespace PvPatch.Live.Platform;

/// <summary>
/// A section backed by the page file, mapped twice: the run view replaces a placeholder (a base address and address requirements can't be given
/// together, so the place is reserved first), the write view lies anywhere.
/// </summary>
internal sealed unsafe class WindowsMapping : CodeMapping
{
    private readonly nint _section;
    private bool _disposed;

    public WindowsMapping(void* run, void* write, long size, nint section)
        : base((ulong)run, (byte*)write, size) => _section = section;

    public static bool TryCreateDual(void* run, long size, out CodeMapping? mapping, out PatchDiagnostic? error)
    {
        mapping = null;
        error = null;
        nint section = CreateFileMappingW(-1, null, PAGE_EXECUTE_READWRITE | SEC_RESERVE, (uint)(size >> 32), (uint)size, null);
        if (section == 0)
        {
            error = WindowsPlatform.Refused("a section with executable pages");
            _ = VirtualFree(run, 0, MEM_RELEASE);
            return false;
        }

        if (MapViewOfFile3(section, 0, run, 0, (nuint)size, MEM_REPLACE_PLACEHOLDER, PAGE_EXECUTE_READ, null, 0) is null)
        {
            error = WindowsPlatform.Refused("the run view of an arena");
            _ = VirtualFree(run, 0, MEM_RELEASE);
            _ = CloseHandle(section);
            return false;
        }

        void* write = MapViewOfFile3(section, 0, null, 0, (nuint)size, 0, PAGE_READWRITE, null, 0);
        if (write is null)
        {
            error = WindowsPlatform.Refused("the write view of an arena");
            _ = UnmapViewOfFile(run);
            _ = CloseHandle(section);
            return false;
        }

        mapping = new WindowsMapping(run, write, size, section);
        return true;
    }

    public override bool TryCommit(long offset, long length, PageUse use, out PatchDiagnostic? error)
    {
        error = null;
        uint protection = use == PageUse.Data ? PAGE_READONLY : PAGE_EXECUTE_READ;
        if (_section == 0)
        {
            protection = use == PageUse.Data ? PAGE_READWRITE : PAGE_EXECUTE_READWRITE;
        }

        // Committing pages of a SEC_RESERVE section through one view commits them for all; each view has its own protection.
        if (VirtualAlloc((byte*)Run.Value + offset, (nuint)length, MEM_COMMIT, protection) is null
            || (_section != 0 && VirtualAlloc(Write + offset, (nuint)length, MEM_COMMIT, PAGE_READWRITE) is null)
            || VirtualProtect((byte*)Run.Value + offset, (nuint)length, protection, out _) == 0)
        {
            error = WindowsPlatform.Refused("executable memory");
        }

        return error is null;
    }

    public override void Dispose()
    {
        if (!_disposed)
        {
            _ = _section == 0 ? VirtualFree((void*)Run.Value, 0, MEM_RELEASE) : UnmapViewOfFile((void*)Run.Value);
            Abandon();
        }
    }

    public override void Abandon()
    {
        if (!_disposed && _section != 0)
        {
            _ = UnmapViewOfFile(Write);
            _ = CloseHandle(_section);
        }

        _disposed = true;
    }
}
