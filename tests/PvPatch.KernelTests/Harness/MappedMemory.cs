using System.Globalization;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace PvPatch.KernelTests.Harness;

/// <summary>
/// Memory of a stopped machine by virtual address, through the page tables of its processors: for a kernel whose pages
/// are scattered over the machine (a Xen guest) or whose place is not known (KASLR).
/// </summary>
internal sealed partial class MappedMemory(Qmp qmp, string directory)
{
    private const int PageSize = 4096;

    /// <summary>Size of the pages the kernel image is mapped with, and the step by which it is moved.</summary>
    private const int LargePageSize = 2 << 20;

    private string PartPath => Path.Combine(directory, "part");

    /// <summary>A processor on which the address is mapped now; null if there is none.</summary>
    public int? FindProcessor(ulong address)
    {
        int count = qmp.Execute("query-cpus-fast").AsArray().Count;
        for (int index = 0; index < count; index++)
        {
            if (TrySave(address, 1, index))
            {
                return index;
            }
        }

        return null;
    }

    /// <summary>
    /// Writes the mapped bytes from an address on to a file, up to the first unmapped page.
    /// </summary>
    /// <returns>The number of bytes written.</returns>
    public int Save(ulong start, int most, string path, int processor)
    {
        int done = 0;
        int piece = LargePageSize;
        using FileStream file = File.Create(path);
        while (done < most && piece >= PageSize)
        {
            int length = Math.Min(piece, most - done);
            if (TrySave(start + (ulong)done, length, processor))
            {
                using FileStream part = File.OpenRead(PartPath);
                part.CopyTo(file);
                done += length;
            }
            else
            {
                piece /= 2;
            }
        }

        return done;
    }

    /// <summary>
    /// Start of a kernel that was moved: the lowest of the large pages mapped in one run with the instruction the
    /// processor is at. The kernel unmaps what lies below its image early in its start. Null outside the kernel.
    /// </summary>
    public ulong? FindKernelStart()
    {
        JsonObject arguments = new() { ["command-line"] = "info registers" };
        Match match = InstructionPointer().Match(qmp.Execute("human-monitor-command", arguments).GetValue<string>());
        ulong start = ulong.Parse(match.Groups[1].ValueSpan, NumberStyles.HexNumber, CultureInfo.InvariantCulture);
        start -= start % LargePageSize;
        if (start < 0xffff_ffff_8000_0000 || !TrySave(start, 1, processor: 0))
        {
            return null;
        }

        while (TrySave(start - LargePageSize, 1, processor: 0))
        {
            start -= LargePageSize;
        }

        return start;
    }

    private bool TrySave(ulong address, int length, int processor)
    {
        // The number is a signed one there: an address of the kernel has to come as a negative number.
        JsonObject arguments = new()
        {
            ["val"] = unchecked((long)address),
            ["size"] = length,
            ["filename"] = PartPath,
            ["cpu-index"] = processor,
        };
        try
        {
            qmp.Execute("memsave", arguments);
            return true;
        }
        catch (InvalidOperationException exception) when (exception.Message.Contains("Invalid addr", StringComparison.Ordinal))
        {
            return false;
        }
    }

    [GeneratedRegex(@"\bRIP=([0-9a-f]{16})\b")]
    private static partial Regex InstructionPointer();
}
