using System.Buffers.Binary;

namespace PvPatch.Linux.Tests.Memory;

/// <summary>Writes makedumpfile's flattened form.</summary>
internal sealed class TestFlattened
{
    private readonly List<byte> _file = [];

    public TestFlattened(long type = 1, long version = 1)
    {
        byte[] header = new byte[4096];
        "makedumpfile"u8.CopyTo(header);
        BinaryPrimitives.WriteInt64BigEndian(header.AsSpan(16), type);
        BinaryPrimitives.WriteInt64BigEndian(header.AsSpan(24), version);
        _file.AddRange(header);
    }

    /// <summary>A record; its size is that of the bytes where it is not given.</summary>
    public TestFlattened Record(long offset, byte[] bytes, long? size = null)
    {
        Span<byte> numbers = stackalloc byte[16];
        BinaryPrimitives.WriteInt64BigEndian(numbers, offset);
        BinaryPrimitives.WriteInt64BigEndian(numbers[8..], size ?? bytes.Length);
        _file.AddRange(numbers);
        _file.AddRange(bytes);
        return this;
    }

    public byte[] Build() => [.. _file];

    public byte[] End() => Record(-1, [], -1).Build();

    /// <summary>A dump in records of a size.</summary>
    public static byte[] Of(byte[] dump, int size = 16384)
    {
        var file = new TestFlattened();
        for (int at = 0; at < dump.Length; at += size)
        {
            file.Record(at, dump[at..Math.Min(dump.Length, at + size)]);
        }

        return file.End();
    }
}
