using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Dumps;

/// <summary>Reads ELF cores: QEMU's dump-guest-memory, makedumpfile -E, /proc/vmcore and /proc/kcore.</summary>
internal static class CoreReader
{
    private const int SectionSize = 64;
    private const int NamesLength = 4096;

    public static bool TryRead(MemorySource source, List<PatchDiagnostic> warnings, [NotNullWhen(true)] out DumpContent? content,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        content = null;
        if (!CoreHeader.TryRead(source, out CoreHeader? header, out error))
        {
            return false;
        }

        CoreLayout layout = CoreLayout.Read(source, header, warnings);
        if (layout.Virtual.IsEmpty && layout.Physical.IsEmpty)
        {
            error = header.SegmentCount == 0 && IsXenCore(source, header) ? XenCore() : NoMemory(source, header, warnings.Count > 0);
            return false;
        }

        content = new DumpContent(MemoryFileKind.ElfCore, source)
        {
            Virtual = layout.Virtual,
            Physical = layout.Physical,
            Bitness = header.MachineBitness,
            Notes = CoreNotes.Find(source, layout.Notes, warnings),
        };
        return true;
    }

    private static PatchDiagnostic NoMemory(MemorySource source, CoreHeader header, bool isCut) =>
        DumpReader.Empty("the core holds no memory") with
        {
            Found = $"{header.SegmentCount} program headers"
                + (isCut ? $", and the file ends at {FileRange.Hex((ulong)source.Length)}" : ""),
            Expected = "segments with bytes in the file",
        };

    private static PatchDiagnostic XenCore() =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.MemoryNotACore,
            "the file is a core of a Xen domain as xl dump-core writes it, which is not read here") with
        {
            FileOffset = 0,
            Found = "sections .xen_pages and .xen_p2m or .xen_pfn, and no program headers",
            Expected = "a core with program headers",
            Help = "Dump the whole machine, or verify within the domain: pvpatch verify IMAGE --memory /proc/kcore.",
        };

    // Names of sections: .note.Xen, .xen_prstatus, .xen_shared_info, .xen_p2m or .xen_pfn, .xen_pages.
    private static bool IsXenCore(MemorySource source, CoreHeader header)
    {
        Span<byte> section = stackalloc byte[SectionSize];
        section = section[..(header.Is64 ? SectionSize : 40)];
        ulong at = header.SectionTableOffset + (ulong)header.NamesIndex * (ulong)section.Length;
        if (header.SectionTableOffset == 0 || !FileRange.Fits(at, (ulong)section.Length, source.Length)
            || !source.TryRead((long)at, section))
        {
            return false;
        }

        var fields = new ElfFields(section, header.Is64);
        ulong offset = fields.Native(16, 24);
        byte[] names = new byte[Math.Min(fields.Native(20, 32), NamesLength)];
        return FileRange.Fits(offset, (ulong)names.Length, source.Length) && source.TryRead((long)offset, names)
            && names.AsSpan().IndexOf(".xen_pages\0"u8) >= 0;
    }
}
