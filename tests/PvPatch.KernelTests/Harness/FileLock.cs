using System.Diagnostics;

namespace PvPatch.KernelTests.Harness;

/// <summary>
/// An exclusive lock between processes, held as long as the file is open. The kernel drops it when the
/// holder dies, so a crashed test run leaves nothing to clean up; the empty file stays on purpose
/// (deleting it would let two processes lock two different files of one name).
/// </summary>
internal sealed class FileLock : IDisposable
{
    private readonly FileStream _file;

    private FileLock(FileStream file)
    {
        _file = file;
    }

    /// <summary>Waits until the lock is free.</summary>
    /// <exception cref="TimeoutException">Another process kept it.</exception>
    public static FileLock Acquire(string path, TimeSpan timeout)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        Stopwatch clock = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                return new FileLock(new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None));
            }
            catch (IOException exception)
            {
                // A held lock and a real failure to open look alike here; both end in this message.
                if (clock.Elapsed > timeout)
                {
                    throw new TimeoutException($"{path} stayed locked for {timeout.TotalSeconds:0} s.", exception);
                }

                Thread.Sleep(100);
            }
        }
    }

    public void Dispose()
    {
        _file.Dispose();
    }
}
