using PvPatch.Linux.Files;

namespace PvPatch.Linux.Dumps;

/// <summary>Recognises dumps in other formats than ELF, so that a diagnostic can name the conversion to an ELF core.</summary>
internal static class CoreMagic
{
    public static PatchDiagnostic NotACore(ReadOnlySpan<byte> start)
    {
        (string? form, string help) = Recognize(start);
        return PatchDiagnostic.Error(KernelDiagnosticCodes.MemoryNotACore,
            form is null ? "the file is no ELF core" : $"the file is {form}, which is not read here") with
        {
            FileOffset = 0,
            Found = FileRange.FirstBytes(start),
            Expected = "7f 45 4c 46",
            Help = help,
        };
    }

    private static (string? Form, string Help) Recognize(ReadOnlySpan<byte> start)
    {
        // makedumpfile (1.7) does not turn a compressed dump into an ELF core: "'-E' option is disable".
        if (start.StartsWith("KDUMP   "u8) || start.StartsWith("DISKDUMP"u8))
        {
            return ("a compressed kernel dump",
                "Take the dump as an ELF core, which cannot be made of it any more: makedumpfile -E -d 31 /proc/vmcore CORE; with QEMU "
                + "dump-guest-memory without -z, -l and -s, with virsh dump --memory-only --format elf.");
        }

        if (start.StartsWith("makedumpfile"u8))
        {
            return ("a kernel dump in makedumpfile's flattened form",
                "Bring it together: makedumpfile -R CORE < FILE. What comes out is read if it was made with makedumpfile -E; QEMU's "
                + "dump-guest-memory gives that without -z, -l and -s.");
        }

        // LiME: the number 0x4c694d45 in front of each range.
        if (start.StartsWith("EMiL"u8))
        {
            return ("a LiME dump", "Take it with format=padded, and give the physical address of its first byte (--base).");
        }

        return (null, "For raw memory give the address of its first byte (--base).");
    }
}
