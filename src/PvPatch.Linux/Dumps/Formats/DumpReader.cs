using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Dumps;

/// <summary>Recognises the format of a dump by its first bytes, and has the reader of that format read it.</summary>
internal static class DumpReader
{
    /// <summary>Bytes of the start that the formats are told apart by.</summary>
    public const int StartLength = 64;

    /// <summary>Reads the headers of a dump.</summary>
    /// <param name="source">The file.</param>
    /// <param name="warnings">Gets what is wrong with a dump that can be read.</param>
    /// <param name="content">The memory; its source owns <paramref name="source"/>.</param>
    /// <param name="error">The reason where it can't be read; <paramref name="source"/> is not disposed then.</param>
    /// <returns>Whether it can be read.</returns>
    public static bool TryRead(MemorySource source, List<PatchDiagnostic> warnings, [NotNullWhen(true)] out DumpContent? content,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        content = null;
        if (source.Length == 0)
        {
            error = Empty("the memory file is empty");
            return false;
        }

        Span<byte> room = stackalloc byte[StartLength];
        if (!TryStart(source, room, out ReadOnlySpan<byte> start, out error))
        {
            return false;
        }

        bool isFlattened = FlattenedSource.HasMagic(start);
        if (isFlattened)
        {
            if (!FlattenedSource.TryOpen(source, warnings, out FlattenedSource? dump, out error)
                || !TryStart(dump, room, out start, out error))
            {
                return false;
            }

            source = dump;
        }

        bool isRead = KdumpHeader.HasMagic(start) ? KdumpReader.TryRead(source, warnings, out content, out error)
            : LimeReader.HasMagic(start) ? LimeReader.TryRead(source, warnings, out content, out error)
            : ElfImage.HasMagic(start) ? CoreReader.TryRead(source, warnings, out content, out error)
            : No(start, out error);
        content = content is null ? null : content with { IsFlattened = isFlattened };
        return isRead;
    }

    /// <summary>The error of a file without memory.</summary>
    public static PatchDiagnostic Empty(string message) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.MemoryEmpty, message) with { Help = "Take the dump again." };

    private static bool No(ReadOnlySpan<byte> start, out PatchDiagnostic? error)
    {
        error = DumpMagic.NotRead(start);
        return false;
    }

    private static bool TryStart(
        MemorySource source, Span<byte> room, out ReadOnlySpan<byte> start, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        Span<byte> wanted = room[..(int)Math.Min(source.Length, room.Length)];
        bool isRead = source.TryRead(0, wanted);
        start = wanted;
        error = isRead ? null : PatchDiagnostic.Error(KernelDiagnosticCodes.MemoryUnreadable, "the start of the file cannot be read");
        return isRead;
    }
}
