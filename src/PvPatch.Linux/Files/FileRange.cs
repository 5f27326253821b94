using System.Globalization;

namespace PvPatch.Linux.Files;

/// <summary>Overflow-safe range checks on numbers that come from a file, and the words for them in messages.</summary>
internal static class FileRange
{
    /// <summary>Whether <paramref name="size"/> bytes at <paramref name="offset"/> lie inside <paramref name="length"/> bytes.</summary>
    public static bool Fits(ulong offset, ulong size, long length) =>
        offset <= (ulong)length && size <= (ulong)length - offset;

    /// <summary>Whether a range of addresses ends within an address space of 32 or 64 bits (it may end exactly at its end).</summary>
    public static bool FitsAddressSpace(ulong address, ulong size, int bitness)
    {
        ulong last = bitness == 32 ? uint.MaxValue : ulong.MaxValue;
        return address <= last && (size == 0 || size - 1 <= last - address);
    }

    /// <summary>A range as text: <c>0x100..0x180</c>, or <c>0x100 + 0xffffffffffffffff</c> where its end cannot be written.</summary>
    public static string Describe(ulong offset, ulong size) => ulong.MaxValue - offset < size
        ? string.Create(CultureInfo.InvariantCulture, $"0x{offset:x} + 0x{size:x}")
        : string.Create(CultureInfo.InvariantCulture, $"0x{offset:x}..0x{offset + size:x}");

    /// <summary>A number as <c>0x</c> and hexadecimal digits.</summary>
    public static string Hex(ulong value) => string.Create(CultureInfo.InvariantCulture, $"0x{value:x}");

    /// <summary>The first bytes of something, at most 16, as text: <c>7f 45 4c 46</c>.</summary>
    public static string FirstBytes(ReadOnlySpan<byte> bytes)
    {
        if (bytes.IsEmpty)
        {
            return "nothing";
        }

        string hex = Convert.ToHexStringLower(bytes[..Math.Min(bytes.Length, 16)]);
        return string.Join(' ', hex.Chunk(2).Select(static pair => new string(pair)));
    }
}
