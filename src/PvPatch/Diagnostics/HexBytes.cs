using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace PvPatch;

/// <summary>Bytes as people read them, two digits each, a blank between; and addresses.</summary>
internal static class HexBytes
{
    /// <summary>Writes bytes as <c>ff 15 00 10 00 00</c>.</summary>
    /// <param name="bytes">The bytes.</param>
    /// <returns>The text; empty for no bytes.</returns>
    public static string Format(ReadOnlySpan<byte> bytes)
    {
        if (bytes.IsEmpty)
        {
            return "";
        }

        char[] text = new char[bytes.Length * 3 - 1];
        for (int i = 0; i < bytes.Length; i++)
        {
            text[i * 3] = Digit(bytes[i] >> 4);
            text[i * 3 + 1] = Digit(bytes[i] & 15);
            if (i + 1 < bytes.Length)
            {
                text[i * 3 + 2] = ' ';
            }
        }

        return new string(text);
    }

    /// <summary>Writes an address as all JSON does: <c>0x400000</c>.</summary>
    /// <param name="address">The address.</param>
    /// <returns>The text.</returns>
    public static string Format(VirtualAddress address) => string.Create(CultureInfo.InvariantCulture, $"0x{address.Value:x}");

    /// <summary>Reads what <see cref="Format(ReadOnlySpan{byte})"/> writes; blanks may be missing.</summary>
    /// <param name="text">The text.</param>
    /// <param name="bytes">The bytes.</param>
    /// <returns>Whether the text is an even number of hexadecimal digits, blanks aside.</returns>
    public static bool TryParse(ReadOnlySpan<char> text, [NotNullWhen(true)] out byte[]? bytes)
    {
        byte[] result = new byte[(text.Length + 1) / 2];
        int digits = 0;
        foreach (char c in text)
        {
            if (char.IsWhiteSpace(c))
            {
                continue;
            }

            if (!char.IsAsciiHexDigit(c))
            {
                bytes = null;
                return false;
            }

            result[digits / 2] = (byte)(result[digits / 2] << 4 | (char.IsAsciiDigit(c) ? c - '0' : (c | 0x20) - 'a' + 10));
            digits++;
        }

        bytes = digits % 2 == 0 ? result[..(digits / 2)] : null;
        return bytes is not null;
    }

    /// <summary>Reads what <see cref="Format(ReadOnlySpan{byte})"/> writes, or throws.</summary>
    /// <param name="text">The text.</param>
    /// <returns>The bytes.</returns>
    /// <exception cref="FormatException">The text is no even number of hexadecimal digits, blanks aside.</exception>
    public static byte[] Parse(ReadOnlySpan<char> text) =>
        TryParse(text, out byte[]? bytes) ? bytes : throw new FormatException($"\"{text}\" is not bytes in hexadecimal");

    private static char Digit(int value) => (char)(value < 10 ? '0' + value : 'a' + value - 10);
}
