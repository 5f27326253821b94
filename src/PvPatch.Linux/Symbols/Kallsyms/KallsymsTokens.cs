using System.Buffers.Binary;

namespace PvPatch.Linux.Symbols.Kallsyms;

/// <summary>
/// The 256 strings that the bytes of compressed names stand for (<c>kallsyms_token_table</c>), found by their structure: 256
/// NUL-terminated strings, and right behind them (<c>kallsyms_token_index</c>) the 256 16-bit offsets of these.
/// </summary>
internal sealed class KallsymsTokens
{
    private const int Count = 256;

    /// <summary>Longest name of any kernel, its type included (KSYM_NAME_LEN: 128 before 6.1, 512 since), so longest token too.</summary>
    public const int MaxNameLength = 512;

    private readonly byte[] _text;
    private readonly ushort[] _starts;
    private readonly ushort[] _lengths;
    private readonly bool[] _isPlain;

    private KallsymsTokens(byte[] text, ushort[] starts, ushort[] lengths, int tableOffset, int indexOffset)
    {
        _text = text;
        _starts = starts;
        _lengths = lengths;
        _isPlain = new bool[Count];
        TableOffset = tableOffset;
        IndexOffset = indexOffset;
        for (int i = 0; i < Count; i++)
        {
            _isPlain[i] = SymbolStore.IsName(this[(byte)i]);
        }
    }

    /// <summary>Where in the region the strings start.</summary>
    public int TableOffset { get; }

    /// <summary>Where in the region their offsets start.</summary>
    public int IndexOffset { get; }

    /// <summary>Where in the region their offsets end.</summary>
    public int IndexEnd => IndexOffset + (Count * sizeof(ushort));

    public ReadOnlySpan<byte> this[byte token] => _text.AsSpan(_starts[token], _lengths[token]);

    public int LengthOf(byte token) => _lengths[token];

    /// <summary>Whether a token is printable and not empty, as all that names use are.</summary>
    public bool IsPlain(byte token) => _isPlain[token];

    /// <summary>The first table of tokens whose offsets lie at or behind <paramref name="from"/>.</summary>
    public static KallsymsTokens? FindNext(KallsymsRegion region, int from, WorkBudget budget)
    {
        ReadOnlySpan<byte> bytes = region.Bytes.Span;
        long last = bytes.Length - (Count * sizeof(ushort));
        for (long at = region.AlignUp(from, KallsymsRegion.Step); at <= last; at += KallsymsRegion.Step)
        {
            // The first string is at 0, the second directly behind it.
            long next = KallsymsRegion.NextWord(bytes, at, 1u << 16, (uint)(MaxNameLength + 1) << 16);
            if (!budget.TrySpend(1 + ((next - at) / KallsymsRegion.Step)) || next > last)
            {
                return null;
            }

            at = next;
            if ((KallsymsRegion.Word(bytes, at) & 0xffff) == 0
                && Ascends(bytes.Slice((int)at, Count * sizeof(ushort)), budget)
                && TryFindStrings(region, (int)at, budget) is { } tokens)
            {
                return tokens;
            }
        }

        return null;
    }

    private static bool Ascends(ReadOnlySpan<byte> index, WorkBudget budget)
    {
        int last = 0;
        int i = 1;
        for (; i < Count; i++)
        {
            int offset = Offset(index, i);
            if (offset <= last || offset - last > MaxNameLength + 1)
            {
                break;
            }

            last = offset;
        }

        return budget.TrySpend(i) && i == Count;
    }

    /// <summary>The strings end where the index starts, filling aside; how long the last one is has to be tried.</summary>
    private static KallsymsTokens? TryFindStrings(KallsymsRegion region, int indexOffset, WorkBudget budget)
    {
        ReadOnlySpan<byte> bytes = region.Bytes.Span;
        ReadOnlySpan<byte> index = bytes.Slice(indexOffset, Count * sizeof(ushort));
        int lastStart = Offset(index, Count - 1);
        long lowest = Math.Max(0, indexOffset - (long)lastStart - MaxNameLength - region.AddressSize);
        for (
            long table = region.AlignDown(indexOffset - lastStart - 1L, KallsymsRegion.Step); table >= lowest; table -= KallsymsRegion.Step)
        {
            int last = LengthOfLast(bytes, index, (int)table, indexOffset, region.AddressSize, budget);
            if (last >= 0)
            {
                return Create(bytes, index, (int)table, indexOffset, last);
            }

            if (budget.IsSpent)
            {
                break;
            }
        }

        return null;
    }

    /// <summary>The length of the last string, or -1 where the strings do not start and end where the index says.</summary>
    private static int LengthOfLast(
        ReadOnlySpan<byte> bytes, ReadOnlySpan<byte> index, int table, int indexOffset, int fillingLimit, WorkBudget budget)
    {
        for (int i = 0; i < Count - 1; i++)
        {
            int length = Offset(index, i + 1) - Offset(index, i) - 1;
            if (bytes.Slice(table + Offset(index, i), length + 1).IndexOf((byte)0) != length)
            {
                budget.TrySpend(i + 4);
                return -1;
            }
        }

        // What is left between the last string and the index is filling.
        int start = table + Offset(index, Count - 1);
        int last = bytes[start..indexOffset].IndexOf((byte)0);
        int end = start + last + 1;
        bool fits = budget.TrySpend(Count) && last is >= 0 and <= MaxNameLength
            && indexOffset - end < fillingLimit && KallsymsRegion.IsPadding(bytes, end, indexOffset);
        return fits ? last : -1;
    }

    private static KallsymsTokens Create(ReadOnlySpan<byte> bytes, ReadOnlySpan<byte> index, int table, int indexOffset, int lengthOfLast)
    {
        var starts = new ushort[Count];
        var lengths = new ushort[Count];
        for (int i = 0; i < Count; i++)
        {
            starts[i] = (ushort)Offset(index, i);
            lengths[i] = (ushort)(i + 1 < Count ? Offset(index, i + 1) - Offset(index, i) - 1 : lengthOfLast);
        }

        return new KallsymsTokens(bytes[table..indexOffset].ToArray(), starts, lengths, table, indexOffset);
    }

    private static int Offset(ReadOnlySpan<byte> index, int i) => BinaryPrimitives.ReadUInt16LittleEndian(index[(i * sizeof(ushort))..]);
}
