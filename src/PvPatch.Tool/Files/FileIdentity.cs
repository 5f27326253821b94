using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace PvPatch.Tool.Files;

/// <summary>Kind of a file.</summary>
internal enum FileKind
{
    Regular,
    Directory,
    Pipe,

    /// <summary>A device or a socket: no end to read to, and nothing that a rename may replace.</summary>
    Device,
}

/// <summary>Identity of a file (device and inode), its kind, permissions and owner. Links are followed.</summary>
/// <param name="Device">The file system.</param>
/// <param name="Inode">The file in it: two names with the same device and inode are hard links to one file.</param>
/// <param name="Kind">The kind.</param>
/// <param name="Mode">The permissions.</param>
/// <param name="Owner">The number of the user it belongs to.</param>
/// <param name="Group">The number of the group it belongs to.</param>
internal readonly record struct FileIdentity(ulong Device, ulong Inode, FileKind Kind, UnixFileMode Mode, uint Owner, uint Group)
{
    private const int CurrentDirectory = -100; // AT_FDCWD
    private const uint BasicStats = 0x7ff; // STATX_BASIC_STATS
    private const int SizeOfStatx = 256;

    // Offsets in struct statx, which is the same on every architecture.
    private const int OwnerOffset = 20; // stx_uid
    private const int GroupOffset = 24; // stx_gid
    private const int ModeOffset = 28; // stx_mode, 16 bits
    private const int InodeOffset = 32; // stx_ino
    private const int DeviceOffset = 136; // stx_dev_major, stx_dev_minor

    private const int KindMask = 0xf000; // S_IFMT
    private const int ModeMask = 0xfff;

    /// <summary>Reads the identity of a file; on Linux only.</summary>
    /// <returns>Whether there is something at the path and the system says what.</returns>
    public static bool TryGet(string path, out FileIdentity identity)
    {
        identity = default;
        byte[] found = new byte[SizeOfStatx];
        try
        {
            if (!OperatingSystem.IsLinux()
                || StatX(CurrentDirectory, [.. System.Text.Encoding.UTF8.GetBytes(path), 0], 0, BasicStats, found) != 0)
            {
                return false;
            }
        }
        catch (Exception exception) when (exception is EntryPointNotFoundException or DllNotFoundException)
        {
            return false; // a C library older than statx (glibc 2.28)
        }

        ReadOnlySpan<byte> result = found;
        int mode = BinaryPrimitives.ReadUInt16LittleEndian(result[ModeOffset..]);
        identity = new FileIdentity(
            BinaryPrimitives.ReadUInt64LittleEndian(result[DeviceOffset..]),
            BinaryPrimitives.ReadUInt64LittleEndian(result[InodeOffset..]),
            KindOf(mode & KindMask),
            (UnixFileMode)(mode & ModeMask),
            BinaryPrimitives.ReadUInt32LittleEndian(result[OwnerOffset..]),
            BinaryPrimitives.ReadUInt32LittleEndian(result[GroupOffset..]));
        return true;
    }

    /// <summary>Whether two paths lead to one file.</summary>
    public static bool AreSame(string first, string second) =>
        TryGet(first, out FileIdentity one) && TryGet(second, out FileIdentity other)
            && (one.Device, one.Inode) == (other.Device, other.Inode);

    private static FileKind KindOf(int type) => type switch
    {
        0x8000 => FileKind.Regular, // S_IFREG
        0x4000 => FileKind.Directory, // S_IFDIR
        0x1000 => FileKind.Pipe, // S_IFIFO
        _ => FileKind.Device, // S_IFCHR, S_IFBLK, S_IFSOCK
    };

    [DllImport("libc", EntryPoint = "statx")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int StatX(int directory, byte[] path, int flags, uint mask, byte[] result);
}
