using System.Globalization;

namespace PvPatch.Images;

/// <summary>A stretch of run addresses.</summary>
public readonly record struct AddressRange
{
    /// <summary>Makes a range.</summary>
    /// <param name="address">Run address of its first byte.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="length"/> is negative.</exception>
    public AddressRange(VirtualAddress address, long length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        Address = address;
        Length = length;
    }

    /// <summary>Run address of the first byte.</summary>
    public VirtualAddress Address { get; }

    /// <summary>Length in bytes.</summary>
    public long Length { get; }

    /// <summary>Whether the range holds a stretch of bytes as a whole.</summary>
    /// <param name="address">Run address of the first byte.</param>
    /// <param name="length">How many bytes.</param>
    /// <returns>Whether it holds them all.</returns>
    public bool Contains(VirtualAddress address, long length)
    {
        ulong offset = unchecked(address.Value - Address.Value);
        return length >= 0 && address >= Address && offset <= (ulong)Length && (ulong)length <= (ulong)Length - offset;
    }

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Address}+0x{Length:x}");
}
