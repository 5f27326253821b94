using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>A checked string table: it ends with NUL, so every offset inside it starts a terminated name.</summary>
internal readonly struct ElfStringTable
{
    // No linker writes longer names; the bound keeps one name from being as long as the file.
    private const int MaxNameLength = 4096;

    private readonly ReadOnlyMemory<byte> _bytes;

    private ElfStringTable(ReadOnlyMemory<byte> bytes)
    {
        _bytes = bytes;
    }

    public int Length => _bytes.Length;

    public static bool TryCreate(
        ReadOnlyMemory<byte> bytes, long fileOffset, string what, out ElfStringTable table, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        table = new ElfStringTable(bytes);
        if (bytes.IsEmpty || bytes.Span[^1] == 0)
        {
            error = null;
            return true;
        }

        error = PatchDiagnostic.Error(KernelDiagnosticCodes.ElfBadStringTable, $"The string table of the {what} is not NUL-terminated") with
        {
            FileOffset = fileOffset + bytes.Length - 1,
            Found = FileRange.FirstBytes(bytes.Span[^1..]),
            Expected = "00",
            Help = "The file is damaged; take the original again",
        };
        return false;
    }

    /// <summary>The bytes of a name, without its NUL; false where the offset lies outside or the name is absurdly long.</summary>
    public bool TryGetName(uint offset, out ReadOnlySpan<byte> name)
    {
        name = default;
        if (offset >= (uint)_bytes.Length)
        {
            // An empty table has only the empty name.
            return offset == 0;
        }

        ReadOnlySpan<byte> rest = _bytes.Span[(int)offset..];
        int end = rest[..Math.Min(rest.Length, MaxNameLength + 1)].IndexOf((byte)0);
        if (end < 0)
        {
            return false;
        }

        name = rest[..end];
        return true;
    }
}
