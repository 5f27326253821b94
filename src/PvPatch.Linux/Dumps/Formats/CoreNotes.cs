using System.Buffers.Binary;

namespace PvPatch.Linux.Dumps;

/// <summary>
/// Walks the notes of a core for the one of the kernel. Others (registers, QEMU's processor state) are passed over unread.
/// </summary>
internal static class CoreNotes
{
    private const int HeaderSize = 12; // u32 length of the name, u32 length of the content, u32 type
    private const int MaxNotes = 1 << 16;

    public static VmCoreInfo? Find(MemorySource source, IReadOnlyList<MemorySegment> segments, List<PatchDiagnostic> warnings)
    {
        foreach (MemorySegment segment in segments)
        {
            if (FindIn(source, segment, warnings) is VmCoreInfo found)
            {
                return found;
            }
        }

        return null;
    }

    private static VmCoreInfo? FindIn(MemorySource source, MemorySegment segment, List<PatchDiagnostic> warnings)
    {
        ReadOnlySpan<byte> wanted = "VMCOREINFO\0"u8;
        Span<byte> header = stackalloc byte[HeaderSize];
        Span<byte> name = stackalloc byte[wanted.Length];
        long at = 0;
        for (int i = 0; i < MaxNotes && segment.Length - at >= HeaderSize; i++)
        {
            if (!source.TryRead(segment.FileOffset + at, header))
            {
                return null;
            }

            uint nameSize = BinaryPrimitives.ReadUInt32LittleEndian(header);
            uint size = BinaryPrimitives.ReadUInt32LittleEndian(header[4..]);
            long content = at + HeaderSize + Aligned(nameSize);
            if (content > segment.Length || size > segment.Length - content)
            {
                warnings.Add(PatchDiagnostic.Warning(KernelDiagnosticCodes.CoreBadNotes, "a note of the core leaves its segment") with
                {
                    FileOffset = segment.FileOffset + at,
                    Found = $"a name of {nameSize} and a content of {size} bytes",
                    Expected = $"at most {segment.Length - at - HeaderSize} bytes",
                    Help = "The notes from here on were passed over; the kernel is looked for without them.",
                });
                return null;
            }

            if ((nameSize == wanted.Length || nameSize == wanted.Length - 1) && size <= VmCoreInfo.MaxLength
                && source.TryRead(segment.FileOffset + at + HeaderSize, name[..(int)nameSize]) && wanted.StartsWith(name[..(int)nameSize]))
            {
                byte[] text = new byte[size];
                return source.TryRead(segment.FileOffset + content, text) ? new VmCoreInfo(text) : null;
            }

            at = content + Aligned(size);
        }

        return null;
    }

    private static long Aligned(uint size) => ((long)size + 3) & ~3L;
}
