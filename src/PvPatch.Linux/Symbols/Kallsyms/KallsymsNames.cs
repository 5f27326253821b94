namespace PvPatch.Linux.Symbols.Kallsyms;

/// <summary>
/// The compressed names (<c>kallsyms_names</c>): for each symbol the number of bytes, then that many bytes, each standing for a token.
/// The first character is the type. A number above 127 takes two bytes since 6.1, seven bits each, the lower ones first.
/// </summary>
internal sealed class KallsymsNames
{
    private readonly ReadOnlyMemory<byte> _bytes;
    private readonly KallsymsTokens _tokens;
    private readonly int[] _starts;
    private readonly bool _longLengths;

    public KallsymsNames(ReadOnlyMemory<byte> bytes, KallsymsTokens tokens, int[] starts, bool longLengths)
    {
        _bytes = bytes;
        _tokens = tokens;
        _starts = starts;
        _longLengths = longLengths;
    }

    public int Count => _starts.Length;

    /// <summary>Where in the region the number of symbols stands, right before the names.</summary>
    public required int CountOffset { get; init; }

    /// <summary>The first character of a name: the symbol's type.</summary>
    public char GetType(int index)
    {
        ReadOnlySpan<byte> compressed = Compressed(index);
        ReadOnlySpan<byte> token = compressed.IsEmpty ? default : _tokens[compressed[0]];
        return token.IsEmpty ? '?' : (char)token[0];
    }

    /// <summary>Decodes a name, without its type.</summary>
    /// <param name="index">The symbol.</param>
    /// <param name="buffer">
    /// At least <see cref="KallsymsTokens.MaxNameLength"/> bytes, room for type and name; what does not fit (bytes changed after they were
    /// checked) is cut off.
    /// </param>
    public ReadOnlySpan<byte> GetName(int index, Span<byte> buffer)
    {
        int length = 0;
        foreach (byte code in Compressed(index))
        {
            ReadOnlySpan<byte> token = _tokens[code];
            if (token.Length > buffer.Length - length)
            {
                break;
            }

            token.CopyTo(buffer[length..]);
            length += token.Length;
        }

        return length == 0 ? default : buffer[1..length];
    }

    /// <summary>
    /// The length of the compressed name at an offset and the number of bytes that say so; a length of 0 where the bytes end.
    /// </summary>
    public static int ReadLength(ReadOnlySpan<byte> bytes, int offset, bool longLengths, out int size)
    {
        int first = offset < bytes.Length ? bytes[offset] : 0;
        size = longLengths && first > 0x7f ? 2 : 1;
        if (size == 1)
        {
            return first;
        }

        return offset + 1 < bytes.Length ? (first & 0x7f) | (bytes[offset + 1] & 0x7f) << 7 : 0;
    }

    private ReadOnlySpan<byte> Compressed(int index)
    {
        ReadOnlySpan<byte> bytes = _bytes.Span;
        int start = _starts[index];
        int length = ReadLength(bytes, start, _longLengths, out int size);
        start += size;
        return bytes.Slice(start, Math.Min(length, bytes.Length - start));
    }
}
