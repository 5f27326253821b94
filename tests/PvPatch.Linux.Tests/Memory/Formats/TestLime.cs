using System.Buffers.Binary;

namespace PvPatch.Linux.Tests.Memory;

/// <summary>Writes LiME dumps.</summary>
internal sealed class TestLime
{
    private readonly List<byte> _file = [];

    /// <summary>A range; its last address is that of the last byte where it is not given.</summary>
    public TestLime Range(ulong first, byte[] bytes, ulong? last = null, uint version = 1)
    {
        byte[] header = new byte[32];
        "EMiL"u8.CopyTo(header);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(4), version);
        BinaryPrimitives.WriteUInt64LittleEndian(header.AsSpan(8), first);
        BinaryPrimitives.WriteUInt64LittleEndian(header.AsSpan(16), last ?? first + (ulong)bytes.Length - 1);
        _file.AddRange(header);
        _file.AddRange(bytes);
        return this;
    }

    public TestLime Bytes(params byte[] bytes)
    {
        _file.AddRange(bytes);
        return this;
    }

    public byte[] Build() => [.. _file];
}
