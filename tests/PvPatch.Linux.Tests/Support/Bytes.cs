using System.Buffers.Binary;

namespace PvPatch.Linux.Tests.Support;

/// <summary>Changes single fields of test input.</summary>
internal static class Bytes
{
    public static byte[] With16(this byte[] bytes, int offset, ushort value)
    {
        byte[] copy = [.. bytes];
        BinaryPrimitives.WriteUInt16LittleEndian(copy.AsSpan(offset), value);
        return copy;
    }

    public static byte[] With32(this byte[] bytes, int offset, uint value)
    {
        byte[] copy = [.. bytes];
        BinaryPrimitives.WriteUInt32LittleEndian(copy.AsSpan(offset), value);
        return copy;
    }

    public static byte[] With64(this byte[] bytes, int offset, ulong value)
    {
        byte[] copy = [.. bytes];
        BinaryPrimitives.WriteUInt64LittleEndian(copy.AsSpan(offset), value);
        return copy;
    }

    public static byte[] FromHex(string hex) => Convert.FromHexString(hex.Replace(" ", "", StringComparison.Ordinal));
}
