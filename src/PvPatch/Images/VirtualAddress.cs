using System.Globalization;

namespace PvPatch;

/// <summary>
/// An address at which code or data is when it runs: never a file offset, never a pointer into the patcher's own memory.
/// </summary>
/// <param name="Value">The address. In 32-bit code only the low 32 bits are used.</param>
public readonly record struct VirtualAddress(ulong Value) : IComparable<VirtualAddress>
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

    /// <summary>Makes an address of a number; the named form of the conversion.</summary>
    /// <param name="value">The address.</param>
    /// <returns>The address.</returns>
    public static VirtualAddress FromUInt64(ulong value) => new(value);

    /// <summary>Reads an address in hexadecimal, with or without <c>0x</c>; underscores and back-ticks between digits are passed over.</summary>
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

    /// <inheritdoc/>
    public int CompareTo(VirtualAddress other) => Value.CompareTo(other.Value);

    /// <summary>The address as <c>0x</c> and at least eight hexadecimal digits.</summary>
    /// <returns>The text.</returns>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"0x{Value:x8}");
}
