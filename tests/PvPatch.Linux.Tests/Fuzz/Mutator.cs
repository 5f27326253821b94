using System.Buffers.Binary;

namespace PvPatch.Linux.Tests.Fuzz;

/// <summary>
/// Damages input: random bytes, bit flips, truncation, numbers that readers stumble over, copied blocks. The same seed gives the
/// same inputs on every machine.
/// </summary>
internal sealed class Mutator(int seed)
{
    private static readonly uint[] s_interesting32 =
        [0, 1, 2, 3, 4, 7, 8, 12, 16, 24, 40, 56, 64, 0x7f, 0x80, 0xff, 0x100, 0xfff, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff,
            0x80000000, 0xfffffff0, 0xfffffffe, 0xffffffff];

    private static readonly ulong[] s_interesting64 =
        [0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffffffff, 0x8000000000000000, 0xffffffff80000000,
            0xffffffff81000000, 0xfffffffffffffff0, 0xffffffffffffffff];

    // Predictable on purpose: a failure is repeated by its seed.
    private readonly Random _random = new(seed);

    /// <summary>Up to <paramref name="maxLength"/> bytes without any form.</summary>
    public byte[] RandomBytes(int maxLength)
    {
        byte[] bytes = new byte[_random.Next(maxLength + 1)];
        _random.NextBytes(bytes);
        return bytes;
    }

    /// <summary>A damaged copy of valid input.</summary>
    public byte[] Mutate(byte[] valid)
    {
        byte[] bytes = [.. valid];
        int steps = 1 + _random.Next(4);
        for (int i = 0; i < steps && bytes.Length > 0; i++)
        {
            bytes = Step(bytes);
        }

        return bytes;
    }

    private byte[] Step(byte[] bytes)
    {
        int at = Place(bytes.Length);
        switch (_random.Next(8))
        {
            case 0:
                bytes[at] ^= (byte)(1 << _random.Next(8));
                return bytes;
            case 1:
                bytes[at] = (byte)_random.Next(256);
                return bytes;
            case 2:
                return bytes[..at];
            case 3:
                return [.. bytes, .. RandomBytes(64)];
            case 4 when bytes.Length >= 2:
                BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(Math.Min(at, bytes.Length - 2)), (ushort)Pick(s_interesting32));
                return bytes;
            case 5 when bytes.Length >= 8:
                BinaryPrimitives.WriteUInt64LittleEndian(
                    bytes.AsSpan(Math.Min(at & ~3, bytes.Length - 8)), Pick(s_interesting64) + (ulong)_random.Next(3) - 1);
                return bytes;
            case 6:
                return CopyBlock(bytes, at);
            default:
                if (bytes.Length >= 4)
                {
                    BinaryPrimitives.WriteUInt32LittleEndian(
                        bytes.AsSpan(Math.Min(at & ~3, bytes.Length - 4)), Pick(s_interesting32) + (uint)_random.Next(3) - 1);
                }

                return bytes;
        }
    }

    // Half of all places are among the first or last kilobyte, where the headers and tables of small files are.
    private int Place(int length) => _random.Next(4) switch
    {
        0 => _random.Next(Math.Min(length, 1024)),
        1 => length - 1 - _random.Next(Math.Min(length, 1024)),
        _ => _random.Next(length),
    };

    private byte[] CopyBlock(byte[] bytes, int at)
    {
        int from = _random.Next(bytes.Length);
        int length = Math.Min(1 + _random.Next(64), bytes.Length - Math.Max(from, at));
        bytes.AsSpan(from, length).CopyTo(bytes.AsSpan(at));
        return bytes;
    }

    private T Pick<T>(T[] values) => values[_random.Next(values.Length)];
}
