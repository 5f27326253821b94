namespace PvPatch.Live;

/// <summary>
/// Which bytes of a stretch are taken: grows upward, and fills holes first. Pure bookkeeping; not safe for several threads.
/// </summary>
internal sealed class ArenaSpace
{
    private readonly long _size;
    private readonly long _end;
    private readonly List<(long Start, long Length)> _holes = []; // in order, never touching one another
    private long _top;
    private long _longestHole; // no hole is longer

    public ArenaSpace(long start, long end)
    {
        _size = end - start;
        _end = end;
        _top = start;
    }

    /// <summary>Bytes taken.</summary>
    public long Used { get; private set; }

    /// <summary>Bytes that could still be taken, in however many pieces.</summary>
    public long Free => _size - Used;

    /// <summary>Takes bytes.</summary>
    /// <param name="length">How many.</param>
    /// <param name="alignment">A power of two.</param>
    /// <param name="offset">Where.</param>
    public bool TryTake(long length, long alignment, out long offset)
    {
        if (length <= _longestHole)
        {
            long longest = 0;
            for (int i = 0; i < _holes.Count; i++)
            {
                (long hole, long size) = _holes[i];
                offset = Align(hole, alignment);
                if (offset + length <= hole + size)
                {
                    Cut(i, offset, length);
                    Used += length;
                    return true;
                }

                longest = Math.Max(longest, size);
            }

            _longestHole = longest;
        }

        offset = Align(_top, alignment);
        if (length > _end - offset)
        {
            return false;
        }

        if (offset > _top)
        {
            Insert(_top, offset - _top);
        }

        _top = offset + length;
        Used += length;
        return true;
    }

    /// <summary>Whether a byte is taken.</summary>
    public bool IsTaken(long offset)
    {
        int behind = FirstBehind(offset);
        return offset < _top && (behind == 0 || offset - _holes[behind - 1].Start >= _holes[behind - 1].Length);
    }

    /// <summary>Gives bytes back.</summary>
    public void Give(long offset, long length)
    {
        if (length == 0)
        {
            return;
        }

        Used -= length;
        if (offset + length == _top)
        {
            _top = offset;
            if (_holes.Count > 0 && _holes[^1].Start + _holes[^1].Length == _top)
            {
                _top = _holes[^1].Start;
                _holes.RemoveAt(_holes.Count - 1);
            }

            return;
        }

        Insert(offset, length);
    }

    private static long Align(long value, long alignment) => value + alignment - 1 & -alignment;

    private void Cut(int index, long offset, long length)
    {
        (long hole, long size) = _holes[index];
        _holes.RemoveAt(index);
        long behind = hole + size - (offset + length);
        if (behind > 0)
        {
            _holes.Insert(index, (offset + length, behind));
        }

        if (offset > hole)
        {
            _holes.Insert(index, (hole, offset - hole));
        }
    }

    private void Insert(long offset, long length)
    {
        int index = FirstBehind(offset);
        if (index < _holes.Count && offset + length == _holes[index].Start)
        {
            length += _holes[index].Length;
            _holes.RemoveAt(index);
        }

        if (index > 0 && _holes[index - 1].Start + _holes[index - 1].Length == offset)
        {
            (offset, length) = (_holes[index - 1].Start, _holes[index - 1].Length + length);
            _holes.RemoveAt(--index);
        }

        _holes.Insert(index, (offset, length));
        _longestHole = Math.Max(_longestHole, length);
    }

    private int FirstBehind(long offset)
    {
        int low = 0;
        int high = _holes.Count;
        while (low < high)
        {
            int middle = (low + high) / 2;
            (low, high) = _holes[middle].Start > offset ? (low, middle) : (middle + 1, high);
        }

        return low;
    }
}
