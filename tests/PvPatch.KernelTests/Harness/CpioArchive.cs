namespace PvPatch.KernelTests.Harness;

/// <summary>
/// Writes a cpio archive in the "newc" form, the one an initramfs has: a header of 110 ASCII characters (magic
/// 070701 and thirteen numbers of eight hex digits), the name, the data, each padded to four bytes.
/// </summary>
internal sealed class CpioArchive(Stream output)
{
    private const uint Directory = 0x4000;
    private const uint CharacterDevice = 0x2000;
    private const uint RegularFile = 0x8000;

    // rwxr-xr-x and rw-------
    private const uint ReadAndExecute = 0x1ed;
    private const uint OwnerOnly = 0x180;

    private uint _inode = 1;

    public void AddDirectory(string name)
    {
        Add(name, Directory | ReadAndExecute, [], 0, 0);
    }

    public void AddExecutable(string name, ReadOnlySpan<byte> data)
    {
        Add(name, RegularFile | ReadAndExecute, data, 0, 0);
    }

    public void AddCharacterDevice(string name, uint major, uint minor)
    {
        Add(name, CharacterDevice | OwnerOnly, [], major, minor);
    }

    /// <summary>Writes the entry that ends every archive.</summary>
    public void Finish()
    {
        Add("TRAILER!!!", 0, [], 0, 0);
    }

    private void Add(string name, uint mode, ReadOnlySpan<byte> data, uint major, uint minor)
    {
        byte[] nameBytes = [.. System.Text.Encoding.ASCII.GetBytes(name), 0];
        uint[] numbers =
        [
            _inode++, mode,
            0, 0, // user, group
            1, // links
            0, // time
            (uint)data.Length,
            0, 0, // device the archive came from
            major, minor,
            (uint)nameBytes.Length,
            0, // check sum: not used by this form
        ];
        string header = "070701" + string.Concat(numbers.Select(static number => number.ToString("X8", null)));
        output.Write(System.Text.Encoding.ASCII.GetBytes(header));
        output.Write(nameBytes);
        Pad(header.Length + nameBytes.Length);
        output.Write(data);
        Pad(data.Length);
    }

    private void Pad(int written)
    {
        output.Write(stackalloc byte[-written & 3]);
    }
}
