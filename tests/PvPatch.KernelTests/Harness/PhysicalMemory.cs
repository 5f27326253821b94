using System.Text.Json.Nodes;

namespace PvPatch.KernelTests.Harness;

/// <summary>Memory of a stopped machine by physical address.</summary>
internal sealed class PhysicalMemory(Qmp qmp, int sizeMiB)
{
    private static readonly TimeSpan s_timeout = TimeSpan.FromMinutes(1);

    /// <summary>Writes a range to a file.</summary>
    public void Save(ulong address, int length, string path)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(length);

        // pmemsave reads nothing there as zeros, which would look like memory.
        ulong end = (ulong)sizeMiB << 20;
        if (address >= end || (ulong)length > end - address)
        {
            throw new ArgumentOutOfRangeException(
                nameof(address), $"{address:x}+{length:x} is not within the guest's {sizeMiB} MiB.");
        }

        JsonObject arguments = new() { ["val"] = address, ["size"] = length, ["filename"] = path };
        qmp.Execute("pmemsave", arguments);
    }

    /// <summary>The formats of cores that this QEMU was built with.</summary>
    public IReadOnlyList<string> CoreFormats() =>
        [.. qmp.Execute("query-dump-guest-memory-capability")["formats"]!.AsArray().Select(static f => f!.GetValue<string>())];

    /// <summary>Writes everything to an ELF core, or to another format that QEMU has: kdump-zlib, kdump-lzo, kdump-snappy.</summary>
    public void SaveCore(CoreForm form, string path, string format = "elf")
    {
        // A file that QEMU makes could not be written to, and some tests change what is in it.
        File.Create(path).Dispose();
        JsonObject arguments = new() { ["paging"] = form == CoreForm.Paged, ["protocol"] = $"file:{path}", ["format"] = format };
        qmp.Execute("dump-guest-memory", arguments);

        // Most of a young machine's memory is zeros, and the matrix keeps dozens of cores. A file system without holes keeps them whole.
        if (ExternalTool.Exists("fallocate"))
        {
            ExternalTool.Run("fallocate", ["--dig-holes", path], s_timeout);
        }
    }
}
