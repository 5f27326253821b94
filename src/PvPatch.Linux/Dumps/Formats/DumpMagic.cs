using PvPatch.Linux.Files;

namespace PvPatch.Linux.Dumps;

/// <summary>Names the format of files that are no dump of a format that is read here, with the way to one that is.</summary>
internal static class DumpMagic
{
    private static readonly Form[] s_forms =
    [
        // VMware's checkpoint files: a little-endian number, 0xbed2bed0 or as they were before and after it.
        Form.Vmware([0xd0, 0xbe, 0xd2, 0xbe]),
        Form.Vmware([0xd1, 0xba, 0xd1, 0xba]),
        Form.Vmware([0xd2, 0xbe, 0xd2, 0xbe]),
        Form.Vmware([0xd3, 0xbe, 0xd3, 0xbe]),

        // The magic number of a migration stream is big-endian: QEVM.
        new("QEVM"u8, "a QEMU migration stream", QemuHelp),
        new("LibvirtQemudSave"u8, "a saved domain of libvirt", QemuHelp),
        new("LibvirtQemudPart"u8, "a saved domain of libvirt, not written whole", QemuHelp),
        new([(byte)'Q', (byte)'F', (byte)'I', 0xfb], "a disk image (qcow2)", QemuHelp),
        new("PAGEDU64"u8, "a crash dump in the format of 64-bit Windows", WindowsHelp),
        new("PAGEDUMP"u8, "a crash dump in the format of 32-bit Windows", WindowsHelp),
        Form.Packed([0x1f, 0x8b], "gzip", "gunzip -k"),
        Form.Packed([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], "xz", "unxz -k"),
        Form.Packed([0x28, 0xb5, 0x2f, 0xfd], "zstd", "unzstd"),
        Form.Packed([0x04, 0x22, 0x4d, 0x18], "lz4", "unlz4"),
        Form.Packed([0x42, 0x5a, 0x68], "bzip2", "bunzip2 -k"),
        Form.Packed([0x89, 0x4c, 0x5a, 0x4f, 0x00], "lzop", "lzop -d"),
        Form.Packed([0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c], "7z", "7z x"),
        Form.Packed([0x50, 0x4b, 0x03, 0x04], "zip", "unzip"),
    ];

    private const string QemuHelp =
        "Dump the memory of the running machine: dump-guest-memory in QEMU's monitor, or virsh dump --memory-only.";

    private const string WindowsHelp =
        "Take the dump as an ELF core: QEMU's dump-guest-memory without -w, virsh dump --memory-only --format elf.";

    private sealed class Form
    {
        private readonly byte[] _magic;

        public Form(ReadOnlySpan<byte> magic, string name, string help)
        {
            _magic = magic.ToArray();
            Name = name;
            Help = help;
        }

        public string Name { get; }

        public string Help { get; }

        public static Form Vmware(ReadOnlySpan<byte> magic) => new(magic, "a state of a VMware machine (.vmss, .vmsn)",
            "The memory is in the .vmem file beside it: give that, with --base 0.");

        public static Form Packed(ReadOnlySpan<byte> magic, string program, string command) =>
            new(magic, $"packed with {program}", $"Unpack it first: {command} FILE.");

        public bool Fits(ReadOnlySpan<byte> start) => start.StartsWith(_magic);
    }

    /// <summary>The error of a file that is in no format that is read here.</summary>
    /// <param name="start">The first bytes, <see cref="DumpReader.StartLength"/> where the file has them.</param>
    public static PatchDiagnostic NotRead(ReadOnlySpan<byte> start)
    {
        foreach (Form form in s_forms)
        {
            if (form.Fits(start))
            {
                return NotRead(start, $"the file is {form.Name}, which is not read here", form.Help);
            }
        }

        return NotRead(start, "the file is no memory dump in a format that is read here",
            "For raw memory give the address of its first byte (--base).");
    }

    /// <summary>The error of a file that is not read, for a reason of its own.</summary>
    public static PatchDiagnostic NotRead(ReadOnlySpan<byte> start, string message, string help) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.MemoryNotACore, message) with
        {
            FileOffset = 0,
            Found = FileRange.FirstBytes(start),
            Expected = "an ELF core, a compressed kernel dump (KDUMP), a LiME dump, or one of the first two flattened",
            Help = help,
        };
}
