using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace PvPatch.Tool.Files;

/// <summary>The steps of writing that can fail. Tests replace it by a disk that is full or fails at a given step.</summary>
internal class OutputDisk
{
    private const int ReadOnlyDirectory = 0x10000 | 0x80000; // O_RDONLY | O_DIRECTORY | O_CLOEXEC, x86-64
    private const int ReadOnlyDirectoryArm = 0x4000 | 0x80000; // the same on arm64
    private const int KeepId = -1;

    /// <summary>Writes bytes behind those written before.</summary>
    /// <exception cref="IOException">The disk is full, or fails.</exception>
    public virtual void Write(FileStream file, ReadOnlySpan<byte> bytes) => file.Write(bytes);

    /// <summary>Waits until a file's bytes are on the disk.</summary>
    /// <exception cref="IOException">They are not.</exception>
    public virtual void Flush(FileStream file) => file.Flush(flushToDisk: true);

    /// <summary>Renames a file over whatever has that name.</summary>
    /// <exception cref="IOException">It keeps its name.</exception>
    public virtual void Rename(string from, string to) => File.Move(from, to, overwrite: true);

    /// <summary>Waits until the names of a folder are on the disk.</summary>
    /// <exception cref="IOException">They are not.</exception>
    public virtual void FlushFolder(string folder)
    {
        if (!OperatingSystem.IsLinux())
        {
            return; // other systems have no such call
        }

        int flags = RuntimeInformation.ProcessArchitecture is Architecture.Arm64 or Architecture.Arm
            ? ReadOnlyDirectoryArm : ReadOnlyDirectory;
        int handle = Open(Path(folder), flags);
        if (handle < 0)
        {
            return; // a folder that may be written to and not read: its names cannot be waited for
        }

        int result = FSync(handle);
        int error = Marshal.GetLastPInvokeError();
        _ = Close(handle);
        const int InputOutput = 5; // EIO; what a file system does not support (EINVAL) is no failure
        if (result != 0 && error == InputOutput)
        {
            throw new IOException(Marshal.GetPInvokeErrorMessage(error));
        }
    }

    /// <summary>Gives a file a second name.</summary>
    /// <returns>Whether it was given: not on file systems without hard links.</returns>
    public virtual bool TryLink(string existing, string second) => OperatingSystem.IsLinux() && Link(Path(existing), Path(second)) == 0;

    /// <summary>Gives a file the owner and group of the one it replaces, as far as this user may.</summary>
    /// <returns>Whether each of them is the same now.</returns>
    public virtual (bool Owner, bool Group) TakeOwner(SafeFileHandle file, FileIdentity replaced)
    {
        if (!OperatingSystem.IsLinux())
        {
            return (true, true);
        }

        bool group = FChown(file, KeepId, unchecked((int)replaced.Group)) == 0;
        return (FChown(file, unchecked((int)replaced.Owner), KeepId) == 0, group);
    }

    private static byte[] Path(string path) => [.. System.Text.Encoding.UTF8.GetBytes(path), 0];

    [DllImport("libc", EntryPoint = "open", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int Open(byte[] path, int flags);

    [DllImport("libc", EntryPoint = "fsync", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int FSync(int handle);

    [DllImport("libc", EntryPoint = "close")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int Close(int handle);

    [DllImport("libc", EntryPoint = "link")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int Link(byte[] existing, byte[] second);

    [DllImport("libc", EntryPoint = "fchown")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int FChown(SafeFileHandle file, int owner, int group);
}
