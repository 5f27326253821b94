using System.Buffers.Text;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Symbols;

/// <summary>
/// Reads a listing of symbols, one a line: address in hexadecimal, a letter for the type, the name. That is the form of a System.map
/// (<c>nm -n</c>) and of <c>/proc/kallsyms</c>, which adds a tab and the module in brackets to what does not belong to the kernel itself.
/// </summary>
internal static class SymbolListingReader
{
    private static ReadOnlySpan<byte> StubText => "The real System.map is in"u8;

    public static bool TryRead(
        ReadOnlySpan<byte> text, [NotNullWhen(true)] out TextSymbolStore? store, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        store = null;
        if (IsStub(text, out error))
        {
            return false;
        }

        // The first walk only counts, so that nothing is made larger than needed.
        if (!TryWalk(text, [], [], [], out int count, out int nameBytes, out error))
        {
            return false;
        }

        var addresses = new ulong[count];
        var starts = new int[count];
        var names = new byte[nameBytes];
        if (!TryWalk(text, addresses, starts, names, out _, out _, out error))
        {
            return false;
        }

        error = Check(addresses, text);
        store = error is null ? new TextSymbolStore(addresses, starts, names) : null;
        return store is not null;
    }

    private static bool TryWalk(
        ReadOnlySpan<byte> text, ulong[] addresses, int[] starts, byte[] names, out int count, out int nameBytes,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        var lines = new LineReader(text);
        count = 0;
        nameBytes = 0;
        error = null;
        while (lines.TryNext(out ReadOnlySpan<byte> line, out int offset, out int number))
        {
            if (line.IsEmpty)
            {
                continue;
            }

            if (!TryParse(line, out ulong address, out byte type, out ReadOnlySpan<byte> name, out bool ofModule))
            {
                error = BadLine(line, offset, number);
                return false;
            }

            if (ofModule)
            {
                continue;
            }

            if (addresses.Length > 0)
            {
                addresses[count] = address;
                starts[count] = nameBytes;
                names[nameBytes] = type;
                name.CopyTo(names.AsSpan(nameBytes + 1));
            }

            // one byte for the type before the name, one NUL behind it
            nameBytes += name.Length + 2;
            count++;
        }

        return true;
    }

    private static bool TryParse(ReadOnlySpan<byte> line, out ulong address, out byte type, out ReadOnlySpan<byte> name, out bool ofModule)
    {
        type = 0;
        name = default;
        ofModule = false;
        if (!Utf8Parser.TryParse(line, out address, out int used, 'x') || used > 16 || line.Length < used + 4 || line[used] != ' '
            || line[used + 2] != ' ')
        {
            return false;
        }

        type = line[used + 1];
        name = line[(used + 3)..];
        int end = name.IndexOfAny((byte)' ', (byte)'\t');
        if (end >= 0)
        {
            ReadOnlySpan<byte> module = name[end..].Trim(" \t"u8);
            name = name[..end];
            ofModule = module.Length > 2 && module[0] == '[' && module[^1] == ']';
            if (!ofModule)
            {
                return false;
            }
        }

        return (char.IsAsciiLetter((char)type) || type == '?') && SymbolStore.IsName(name);
    }

    private static bool IsStub(ReadOnlySpan<byte> text, [NotNullWhen(true)] out PatchDiagnostic? error)
    {
        error = null;
        ReadOnlySpan<byte> start = text[..Math.Min(text.Length, 1024)];
        int lineEnd = start.IndexOf((byte)'\n');
        ReadOnlySpan<byte> line = (lineEnd < 0 ? start : start[..lineEnd]).TrimEnd("\r \t"u8);
        int at = line.IndexOf(StubText);
        if (at < 0)
        {
            return false;
        }

        error = PatchDiagnostic.Error(KernelDiagnosticCodes.SystemMapStub, "The System.map is a stand-in without symbols") with
        {
            FileOffset = at,
            Found = Printable(line[at..]),
            Expected = "lines of an address, a letter and a name",
            Help = "Leave it out: the kernel's own symbols are read from the image; or take the System.map of the package named",
        };
        return true;
    }

    private static PatchDiagnostic? Check(ulong[] addresses, ReadOnlySpan<byte> text)
    {
        if (addresses.Length == 0)
        {
            return PatchDiagnostic.Error(KernelDiagnosticCodes.SymbolListingBad, "The listing has no symbols of the kernel") with
            {
                FileOffset = 0,
                Found = $"{text.Length} bytes of text",
                Expected = "lines of an address, a letter and a name",
                Help = "Give the System.map of this kernel, or its /proc/kallsyms read as root",
            };
        }

        return addresses.AsSpan().ContainsAnyExcept(0ul)
            ? null
            : PatchDiagnostic.Error(KernelDiagnosticCodes.SymbolAddressesHidden, "All addresses of the listing are zero") with
            {
                Found = $"{addresses.Length} symbols at address 0",
                Expected = "the addresses of the running kernel",
                Help = "The kernel hides addresses from users: read /proc/kallsyms as root, with the sysctl kernel.kptr_restrict at 0 or 1",
            };
    }

    private static PatchDiagnostic BadLine(ReadOnlySpan<byte> line, int offset, int number) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.SymbolListingBad, $"Line {number} of the symbol listing is not a symbol") with
        {
            FileOffset = offset,
            Found = Printable(line),
            Expected = "an address in hexadecimal, a letter and a name, such as ffffffff81000000 T _text",
            Help = "Is this a System.map, or a copy of /proc/kallsyms?",
        };

    private static string Printable(ReadOnlySpan<byte> line)
    {
        ReadOnlySpan<byte> start = line[..Math.Min(line.Length, 120)];
        return start.IndexOfAnyExceptInRange((byte)' ', (byte)'~') < 0
            ? System.Text.Encoding.ASCII.GetString(start)
            : FileRange.FirstBytes(start);
    }

    private ref struct LineReader(ReadOnlySpan<byte> text)
    {
        private readonly ReadOnlySpan<byte> _text = text;
        private int _at;
        private int _number;

        public bool TryNext(out ReadOnlySpan<byte> line, out int offset, out int number)
        {
            offset = _at;
            number = ++_number;
            line = default;
            if (_at >= _text.Length)
            {
                return false;
            }

            ReadOnlySpan<byte> rest = _text[_at..];
            int end = rest.IndexOf((byte)'\n');
            line = (end < 0 ? rest : rest[..end]).TrimEnd("\r \t"u8);
            _at += end < 0 ? rest.Length : end + 1;
            return true;
        }
    }
}
