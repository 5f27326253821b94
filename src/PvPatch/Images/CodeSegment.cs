using System.Globalization;

namespace PvPatch.Images;

/// <summary>A run of bytes and the address at which they run. The bytes stay the caller's own.</summary>
public sealed class CodeSegment
{
    /// <summary>Makes a segment.</summary>
    /// <param name="name">A name for reports, such as <c>.text</c>.</param>
    /// <param name="address">Run address of the first byte; where the bytes lie in the patcher's memory does not matter.</param>
    /// <param name="bytes">The bytes. They are written in place by an applier.</param>
    /// <exception cref="ArgumentException">The segment would run over the end of the address space.</exception>
    public CodeSegment(string name, VirtualAddress address, Memory<byte> bytes)
    {
        ArgumentNullException.ThrowIfNull(name);
        if (!bytes.IsEmpty && address.Value + (ulong)(bytes.Length - 1) < address.Value)
        {
            throw new ArgumentException(
                $"segment {name} of {bytes.Length} bytes at {address} runs over the end of the address space", nameof(bytes));
        }

        Name = name;
        Address = address;
        Bytes = bytes;
    }

    /// <summary>The name for reports.</summary>
    public string Name { get; }

    /// <summary>Run address of the first byte.</summary>
    public VirtualAddress Address { get; }

    /// <summary>The bytes.</summary>
    public Memory<byte> Bytes { get; }

    /// <summary>Whether <paramref name="length"/> bytes from <paramref name="address"/> lie inside.</summary>
    /// <param name="address">Run address of the first byte asked for.</param>
    /// <param name="length">How many bytes.</param>
    /// <returns>Whether all of them are in this segment.</returns>
    public bool Contains(VirtualAddress address, int length)
    {
        ulong offset = unchecked(address.Value - Address.Value);
        return address >= Address && offset <= (ulong)Bytes.Length && (ulong)length <= (ulong)Bytes.Length - offset;
    }

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Name} {Address}+0x{Bytes.Length:x}");
}
