namespace PvPatch.Linux.BootText;

/// <summary>
/// Gives out the thunks that a kernel with ITS makes for indirect branches, one after the other, in pages for such thunks
/// (<c>its_allocate_thunk</c>). The text holds their addresses.
/// </summary>
/// <remarks>
/// A thunk is <c>[41] ff e0+r cc</c> and wholly in the upper half of a line of 64 bytes, which those branches are safe in:
/// <code>
/// page  00 ..  1f   int3
///       20     23   26     29   ...     thunks of 3 or 4 bytes
///       40 ..  5f   int3
///       60 ..
/// </code>
/// </remarks>
/// <param name="firstPage">The first page.</param>
/// <param name="pageStep">The distance from one page to the next.</param>
internal sealed class ItsThunks(VirtualAddress firstPage, int pageStep)
{
    private const int PageSize = 0x1000;
    private const int Line = 64;
    private const int FirstOffset = 32;

    private VirtualAddress _page = firstPage;
    private int _offset = FirstOffset;

    /// <summary>The address of the next thunk.</summary>
    /// <param name="register">Its register, 0 to 15.</param>
    public VirtualAddress Next(int register)
    {
        int size = register >= 8 ? 4 : 3;
        if (_offset + size - 1 >= PageSize)
        {
            _page += pageStep;
            _offset = FirstOffset;
        }

        if ((_offset + size - 1) % Line < Line / 2)
        {
            _offset = ((_offset - 1) | (Line - 1)) + (Line / 2) + 1;
        }

        VirtualAddress thunk = _page + _offset;
        _offset += size;
        return thunk;
    }
}
