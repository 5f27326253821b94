using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace PvPatch.Tool.Kernels;

/// <summary>
/// Tells ordinary files from devices, pipes and sockets. An output appears by a rename, and a rename puts a file where a device was: as
/// root, <c>-o /dev/null</c> would do away with the machine's /dev/null.
/// </summary>
internal static class FileType
{
    private const int CurrentDirectory = -100; // AT_FDCWD
    private const uint WantsType = 1; // STATX_TYPE
    private const int SizeOfStatx = 256;
    private const int ModeOffset = 28; // stx_mode, 16 bits; struct statx is the same on every architecture
    private const int TypeMask = 0xf000; // S_IFMT
    private const int Regular = 0x8000; // S_IFREG
    private const int Directory = 0x4000; // S_IFDIR

    /// <summary>Whether there is something at a path that is neither a file nor a directory. Only Linux is asked.</summary>
    public static bool IsSpecial(string path)
    {
        byte[] result = new byte[SizeOfStatx];
        try
        {
            if (!OperatingSystem.IsLinux() || StatX(CurrentDirectory, [.. System.Text.Encoding.UTF8.GetBytes(path), 0], 0, WantsType, result) != 0)
            {
                return false;
            }
        }
        catch (Exception exception) when (exception is EntryPointNotFoundException or DllNotFoundException)
        {
            return false; // a C library older than statx (glibc 2.28)
        }

        return (BinaryPrimitives.ReadUInt16LittleEndian(result.AsSpan(ModeOffset)) & TypeMask) is not (Regular or Directory);
    }

    [DllImport("libc", EntryPoint = "statx")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int StatX(int directory, byte[] path, int flags, uint mask, byte[] result);
}
