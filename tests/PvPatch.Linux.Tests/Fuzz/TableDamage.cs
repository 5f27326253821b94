using System.Buffers.Binary;

namespace PvPatch.Linux.Tests.Fuzz;

/// <summary>Damages parts of a file in place and mends them again. The same seed does the same damage on every machine.</summary>
internal sealed class TableDamage(int seed)
{
    private static readonly ulong[] s_words =
    [
        0, 1, 2, 3, 5, 6, 7, 8, 16, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000,
        0x7fffffffffffffff,
        0x8000000000000000, 0xffffffff80000000, 0xffffffff81000000, 0xffffffff82a00000, 0xffffffff83000000, 0xfffffffffffffff0,
        0xffffffffffffffff,
    ];

    // Predictable on purpose: a failure is repeated by its seed.
    private readonly Random _random = new(seed);
    private readonly Stack<(int At, byte[] Bytes)> _before = [];

    public void Do(byte[] file, (int Start, int Length)[] regions)
    {
        for (int steps = 1 + _random.Next(4); steps > 0; steps--)
        {
            (int start, int length) = regions[_random.Next(regions.Length)];
            int size = Math.Min(1 << _random.Next(4), length);
            int at = start + Math.Min(_random.Next(length) & -size, length - size);
            _before.Push((at, file[at..(at + size)]));
            Step(file, start, length, at, size);
        }
    }

    public void Undo(byte[] file)
    {
        while (_before.TryPop(out (int At, byte[] Bytes) before))
        {
            before.Bytes.CopyTo(file, before.At);
        }
    }

    private void Step(byte[] file, int start, int length, int at, int size)
    {
        Span<byte> place = file.AsSpan(at, size);
        switch (_random.Next(5))
        {
            case 0:
                place[_random.Next(size)] ^= (byte)(1 << _random.Next(8));
                break;
            case 1:
                _random.NextBytes(place);
                break;
            case 2:
                file.AsSpan(start + _random.Next(length - size + 1), size).ToArray().CopyTo(place);
                break;
            default:
                Span<byte> word = stackalloc byte[8];
                ulong value = _random.Next(2) == 0 ? s_words[_random.Next(s_words.Length)] : Old(place);
                BinaryPrimitives.WriteUInt64LittleEndian(word, unchecked(value + (ulong)_random.Next(-16, 17)));
                word[..size].CopyTo(place);
                break;
        }
    }

    private static ulong Old(ReadOnlySpan<byte> place)
    {
        Span<byte> word = stackalloc byte[8];
        word.Clear();
        place.CopyTo(word);
        return BinaryPrimitives.ReadUInt64LittleEndian(word);
    }
}
