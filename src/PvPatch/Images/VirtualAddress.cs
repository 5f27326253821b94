using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace PvPatch;

/// <summary>
/// An address at which code or data is when it runs: never a file offset, never a pointer into the patcher's own memory.
/// </summary>
/// <param name="Value">The address. In 32-bit code only the low 32 bits are used.</param>
public readonly record struct VirtualAddress(ulong Value) : IComparable<VirtualAddress>, ISpanFormattable, ISpanParsable<VirtualAddress>
{
    /// <summary>The address 0, which stands for "no target" in an ops table.</summary>
    public static readonly VirtualAddress Zero;

    /// <summary>Whether the address is 0.</summary>
    public bool IsZero => Value == 0;

    /// <summary>The address <paramref name="bytes"/> further on; wraps at 2^64.</summary>
    /// <param name="address">Where to start.</param>
    /// <param name="bytes">How many bytes to go on, negative to go back.</param>
    /// <returns>The new address.</returns>
    public static VirtualAddress operator +(VirtualAddress address, long bytes) => new(unchecked(address.Value + (ulong)bytes));

    /// <summary>The distance in bytes from <paramref name="right"/> to <paramref name="left"/>, modulo 2^64.</summary>
    /// <param name="left">The end.</param>
    /// <param name="right">The start.</param>
    /// <returns>The signed distance.</returns>
    public static long operator -(VirtualAddress left, VirtualAddress right) => unchecked((long)(left.Value - right.Value));

    /// <summary>Whether <paramref name="left"/> lies before <paramref name="right"/>.</summary>
    /// <param name="left">One address.</param>
    /// <param name="right">The other.</param>
    /// <returns>The order, as unsigned numbers.</returns>
    public static bool operator <(VirtualAddress left, VirtualAddress right) => left.Value < right.Value;

    /// <summary>Whether <paramref name="left"/> lies behind <paramref name="right"/>.</summary>
    /// <param name="left">One address.</param>
    /// <param name="right">The other.</param>
    /// <returns>The order, as unsigned numbers.</returns>
    public static bool operator >(VirtualAddress left, VirtualAddress right) => left.Value > right.Value;

    /// <summary>Whether <paramref name="left"/> does not lie behind <paramref name="right"/>.</summary>
    /// <param name="left">One address.</param>
    /// <param name="right">The other.</param>
    /// <returns>The order, as unsigned numbers.</returns>
    public static bool operator <=(VirtualAddress left, VirtualAddress right) => left.Value <= right.Value;

    /// <summary>Whether <paramref name="left"/> does not lie before <paramref name="right"/>.</summary>
    /// <param name="left">One address.</param>
    /// <param name="right">The other.</param>
    /// <returns>The order, as unsigned numbers.</returns>
    public static bool operator >=(VirtualAddress left, VirtualAddress right) => left.Value >= right.Value;

    /// <summary>Makes an address of a number, so that literals can be written where an address is asked for.</summary>
    /// <param name="value">The address.</param>
    public static implicit operator VirtualAddress(ulong value) => new(value);

    /// <summary>The address as a number.</summary>
    /// <param name="address">The address.</param>
    public static explicit operator ulong(VirtualAddress address) => address.Value;

    /// <summary>The address as a number; the named form of the conversion.</summary>
    /// <returns>The number.</returns>
    public ulong ToUInt64() => Value;

    /// <summary>Makes an address of a number; the named form of the conversion.</summary>
    /// <param name="value">The address.</param>
    /// <returns>The address.</returns>
    public static VirtualAddress FromUInt64(ulong value) => new(value);

    /// <summary>
    /// Reads an address in hexadecimal, with or without <c>0x</c>; underscores and back-ticks between digits are passed over.
    /// </summary>
    /// <param name="text">The text.</param>
    /// <param name="address">The address, 0 where the text is not one.</param>
    /// <returns>Whether the text is an address.</returns>
    public static bool TryParse(ReadOnlySpan<char> text, out VirtualAddress address)
    {
        text = text.Trim();
        if (text.StartsWith("0x", StringComparison.OrdinalIgnoreCase))
        {
            text = text[2..];
        }

        Span<char> digits = stackalloc char[16];
        int count = 0;
        foreach (char c in text)
        {
            if (c is '_' or '`')
            {
                continue;
            }

            if (count == digits.Length || !char.IsAsciiHexDigit(c))
            {
                address = Zero;
                return false;
            }

            digits[count++] = c;
        }

        bool ok = ulong.TryParse(digits[..count], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong value);
        address = new VirtualAddress(value);
        return ok;
    }

    /// <summary>Reads an address as <see cref="TryParse(ReadOnlySpan{char}, out VirtualAddress)"/> does.</summary>
    /// <param name="s">The text.</param>
    /// <param name="provider">Not used: addresses are written alike everywhere.</param>
    /// <param name="result">The address, 0 where the text is not one.</param>
    /// <returns>Whether the text is an address.</returns>
    public static bool TryParse(ReadOnlySpan<char> s, IFormatProvider? provider, out VirtualAddress result) => TryParse(s, out result);

    /// <inheritdoc cref="TryParse(ReadOnlySpan{char}, IFormatProvider?, out VirtualAddress)"/>
    public static bool TryParse([NotNullWhen(true)] string? s, IFormatProvider? provider, out VirtualAddress result) =>
        TryParse(s.AsSpan(), out result);

    /// <summary>Reads an address as <see cref="TryParse(ReadOnlySpan{char}, out VirtualAddress)"/> does, or throws.</summary>
    /// <param name="s">The text.</param>
    /// <param name="provider">Not used: addresses are written alike everywhere.</param>
    /// <returns>The address.</returns>
    /// <exception cref="FormatException">The text is not an address.</exception>
    public static VirtualAddress Parse(ReadOnlySpan<char> s, IFormatProvider? provider = null) =>
        TryParse(s, out VirtualAddress address)
            ? address : throw new FormatException($"\"{s}\" is not an address: hexadecimal digits, at most 16, are");

    /// <inheritdoc cref="Parse(ReadOnlySpan{char}, IFormatProvider?)"/>
    public static VirtualAddress Parse(string s, IFormatProvider? provider = null)
    {
        ArgumentNullException.ThrowIfNull(s);
        return Parse(s.AsSpan(), provider);
    }

    /// <inheritdoc/>
    public int CompareTo(VirtualAddress other) => Value.CompareTo(other.Value);

    /// <summary>The address as <c>0x</c> and at least eight hexadecimal digits.</summary>
    /// <returns>The text.</returns>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"0x{Value:x8}");

    /// <summary>The address as <see cref="ToString()"/> writes it, or as a number in a format.</summary>
    /// <param name="format">
    /// A format for numbers, such as <c>x16</c>; <see langword="null"/> or empty for <c>0x</c> and at least eight digits.
    /// </param>
    /// <param name="formatProvider">Not used: addresses are written alike everywhere.</param>
    /// <returns>The text.</returns>
    public string ToString(string? format, IFormatProvider? formatProvider) =>
        string.IsNullOrEmpty(format) ? ToString() : Value.ToString(format, CultureInfo.InvariantCulture);

    /// <summary>Writes the address as <see cref="ToString(string?, IFormatProvider?)"/> does.</summary>
    /// <param name="destination">Where to.</param>
    /// <param name="charsWritten">How many characters were written.</param>
    /// <param name="format">A format for numbers, or nothing.</param>
    /// <param name="provider">Not used: addresses are written alike everywhere.</param>
    /// <returns>Whether there was room.</returns>
    public bool TryFormat(
        Span<char> destination, out int charsWritten, ReadOnlySpan<char> format = default, IFormatProvider? provider = null) =>
        format.IsEmpty
            ? destination.TryWrite(CultureInfo.InvariantCulture, $"0x{Value:x8}", out charsWritten)
            : Value.TryFormat(destination, out charsWritten, format, CultureInfo.InvariantCulture);
}
