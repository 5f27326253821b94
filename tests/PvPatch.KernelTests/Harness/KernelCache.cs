namespace PvPatch.KernelTests.Harness;

/// <summary>Where fetched files stay between test runs: PVPATCH_KERNEL_CACHE, else ~/.cache/pvpatch-kernels.</summary>
internal static class KernelCache
{
    /// <summary>Long enough for another test process to fetch the largest kernel over a slow line.</summary>
    private static readonly TimeSpan s_lockTimeout = TimeSpan.FromMinutes(20);

    public static string Root
    {
        get
        {
            string? configured = Environment.GetEnvironmentVariable("PVPATCH_KERNEL_CACHE");
            return !string.IsNullOrEmpty(configured)
                ? Path.GetFullPath(configured)
                : Path.Combine(
                    Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache", "pvpatch-kernels");
        }
    }

    /// <summary>
    /// The directory of an entry, filled by <paramref name="fill"/> if it is not there yet. It appears in one
    /// step, by a rename, so that a reader never sees half of it; the lock keeps two processes from the same work.
    /// </summary>
    public static string Entry(string kind, string name, Action<string> fill)
    {
        string entry = Path.Combine(Root, kind, name);
        if (Directory.Exists(entry))
        {
            return entry;
        }

        using FileLock held = FileLock.Acquire($"{entry}.lock", s_lockTimeout);
        if (Directory.Exists(entry))
        {
            return entry;
        }

        string partial = $"{entry}.partial";
        if (Directory.Exists(partial))
        {
            Directory.Delete(partial, recursive: true);
        }

        Directory.CreateDirectory(partial);
        fill(partial);
        Directory.Move(partial, entry);
        return entry;
    }

    /// <summary>The lock for work on a directory that several entries share.</summary>
    public static FileLock Lock(string kind, string name)
    {
        return FileLock.Acquire(Path.Combine(Root, kind, $"{name}.lock"), s_lockTimeout);
    }
}
