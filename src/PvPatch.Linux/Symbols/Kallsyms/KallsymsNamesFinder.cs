namespace PvPatch.Linux.Symbols.Kallsyms;

/// <summary>
/// Finds the names before a table of tokens. Since 4.20 the order is: number of symbols, names, markers (the offset of every 256th
/// name), from 6.2 (and 6.1.60) to 6.3 the order by name, tokens. So the markers are looked for backwards from the tokens, the number
/// and the names backwards from the markers; the names must agree with number and markers and end where the markers start.
/// </summary>
internal sealed class KallsymsNamesFinder
{
    private const int NamesPerMarker = 256;

    // A length byte or two and at least one token; at most a token for each character of the longest name.
    private const int ShortestName = 2;
    private const int LongestName = KallsymsTokens.MaxNameLength + 3;

    private readonly KallsymsRegion _region;
    private readonly KallsymsTokens _tokens;
    private readonly WorkBudget _budget;

    public KallsymsNamesFinder(KallsymsRegion region, KallsymsTokens tokens, WorkBudget budget)
    {
        _region = region;
        _tokens = tokens;
        _budget = budget;
    }

    /// <summary>The names, or null where there are none that agree with everything.</summary>
    public KallsymsNames? Find()
    {
        ReadOnlySpan<byte> bytes = _region.Bytes.Span;
        long at = _region.AlignDown(_tokens.TableOffset - 8L, KallsymsRegion.Step);
        while (at >= 0)
        {
            // A zero, and the length of 256 names: hardly anything else looks like that.
            long markers = KallsymsRegion.LastWord(bytes, at, 0, 0, 0);
            if (!_budget.TrySpend(1 + ((at - Math.Max(0, markers)) / KallsymsRegion.Step)) || markers < 0)
            {
                return null;
            }

            if (CountMarkers(bytes, markers) is >= 2 and int most && FindBefore(markers, most) is { } names)
            {
                return names;
            }

            at = markers - KallsymsRegion.Step;
        }

        return null;
    }

    /// <summary>Number of values that can be markers, the first, 0, included.</summary>
    private int CountMarkers(ReadOnlySpan<byte> bytes, long markers)
    {
        int count = 1;
        uint last = 0;
        for (long at = markers + 4; at + 4 <= _tokens.TableOffset; at += 4, count++)
        {
            uint next = KallsymsRegion.Word(bytes, at);
            if (next <= last || next - last is < NamesPerMarker * ShortestName or > NamesPerMarker * LongestName)
            {
                break;
            }

            last = next;
        }

        _budget.TrySpend(count);
        return count;
    }

    private KallsymsNames? FindBefore(long markers, int most)
    {
        ReadOnlySpan<byte> bytes = _region.Bytes.Span;
        long longest = KallsymsRegion.Word(bytes, markers + (most - 1) * 4L) + (long)NamesPerMarker * LongestName;
        long lowest = Math.Max(_region.AddressSize, markers - longest);
        long at = _region.AlignDown(markers - (NamesPerMarker * ShortestName) - 4, KallsymsRegion.Step);
        while (at >= lowest - 8)
        {
            // A number of names that needs these markers, or the first two of them at least.
            long countOffset = KallsymsRegion.LastWord(
                bytes, at, Math.Max(0, lowest - 8), NamesPerMarker + 1, (uint)Math.Min(uint.MaxValue, (long)most * NamesPerMarker));
            if (!_budget.TrySpend(1 + ((at - Math.Max(countOffset, lowest)) / KallsymsRegion.Step)) || countOffset < 0)
            {
                return null;
            }

            // The number takes four bytes; on 64-bit up to 6.x as many of filling follow.
            if ((_region.Is64 && KallsymsRegion.Word(bytes, countOffset + 4) == 0
                && TryReadAt(countOffset, countOffset + 8, markers, most) is { } names)
                || (names = TryReadAt(countOffset, countOffset + 4, markers, most)) is not null)
            {
                return names;
            }

            at = countOffset - KallsymsRegion.Step;
        }

        return null;
    }

    private KallsymsNames? TryReadAt(long countOffset, long start, long markers, int most)
    {
        ReadOnlySpan<byte> bytes = _region.Bytes.Span;
        uint count = KallsymsRegion.Word(bytes, countOffset);
        long used = (count + (long)NamesPerMarker - 1) / NamesPerMarker;
        if (used < 2 || used > most)
        {
            return null;
        }

        long lastMarker = KallsymsRegion.Word(bytes, markers + ((used - 1) * 4));
        long behindLast = markers - start - lastMarker;
        long namesBehindLast = count - ((used - 1) * NamesPerMarker);
        if (behindLast < namesBehindLast * ShortestName || behindLast > (namesBehindLast * LongestName) + _region.AddressSize)
        {
            return null;
        }

        // 6.1 brought lengths of two bytes. Before, no length was above 127, so the second form is only for an oddity.
        return TryRead((int)countOffset, (int)start, (int)count, markers, longLengths: true)
            ?? TryRead((int)countOffset, (int)start, (int)count, markers, longLengths: false);
    }

    /// <summary>
    /// Walks over the names twice: the first walk, which allocates nothing, checks their places, the second what is in them.
    /// </summary>
    private KallsymsNames? TryRead(int countOffset, int start, int count, long markers, bool longLengths)
    {
        if (!Walk(start, count, markers, longLengths, []))
        {
            return null;
        }

        var starts = new int[count];
        return Walk(start, count, markers, longLengths, starts)
            ? new KallsymsNames(_region.Bytes, _tokens, starts, longLengths) { CountOffset = countOffset }
            : null;
    }

    private bool Walk(int start, int count, long markers, bool longLengths, int[] starts)
    {
        ReadOnlySpan<byte> bytes = _region.Bytes.Span[..(int)markers];
        int at = start;
        for (int i = 0; i < count; i++)
        {
            if (i % NamesPerMarker == 0
                && (KallsymsRegion.Word(_region.Bytes.Span, markers + (i / NamesPerMarker * 4L)) != (uint)(at - start)
                    || !_budget.TrySpend(NamesPerMarker)))
            {
                return false;
            }

            int length = KallsymsNames.ReadLength(bytes, at, longLengths, out int size);
            if (length == 0 || length > bytes.Length - at - size)
            {
                return false;
            }

            if (starts.Length > 0)
            {
                starts[i] = at;
                if (!IsName(bytes.Slice(at + size, length)))
                {
                    return false;
                }
            }

            at += size + length;
        }

        return markers - at < _region.AddressSize && KallsymsRegion.IsPadding(bytes, at, markers);
    }

    /// <summary>A letter for the type, at least one character more, all printable, not longer than any kernel's.</summary>
    private bool IsName(ReadOnlySpan<byte> compressed)
    {
        int length = 0;
        foreach (byte code in compressed)
        {
            length += _tokens.LengthOf(code);
            if (!_tokens.IsPlain(code))
            {
                return false;
            }
        }

        char type = (char)_tokens[compressed[0]][0];
        return length is >= 2 and <= KallsymsTokens.MaxNameLength && (char.IsAsciiLetter(type) || type == '?');
    }
}
