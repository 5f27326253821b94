namespace PvPatch.Linux.Symbols.Kallsyms;

/// <summary>The addresses of the symbols (<c>kallsyms_offsets</c>), in one of their forms, read where they stand.</summary>
internal sealed class KallsymsAddresses
{
    private readonly ReadOnlyMemory<byte> _offsets;
    private readonly ulong _origin;
    private readonly ulong _mask;

    /// <param name="region">The region that holds the offsets.</param>
    /// <param name="start">Where in it they start; all of them lie inside.</param>
    /// <param name="count">The number of symbols.</param>
    /// <param name="form">Their form.</param>
    /// <param name="relativeBase">The base, where the form has one.</param>
    public KallsymsAddresses(KallsymsRegion region, int start, int count, KallsymsAddressForm form, ulong relativeBase)
    {
        _offsets = region.Bytes.Slice(start, count * sizeof(uint));
        _mask = region.Is64 ? ulong.MaxValue : uint.MaxValue;
        _origin = form == KallsymsAddressForm.PlaceRelative ? region.Address + (ulong)start : relativeBase;
        Form = form;
        Count = count;
    }

    public KallsymsAddressForm Form { get; }

    public int Count { get; }

    public ulong this[int index]
    {
        get
        {
            uint word = KallsymsRegion.Word(_offsets.Span, index * 4L);
            int number = unchecked((int)word);
            ulong address = Form switch
            {
                KallsymsAddressForm.BaseRelative => unchecked(_origin + word),
                KallsymsAddressForm.PlaceRelative => unchecked(_origin + ((ulong)index * 4) + (ulong)(long)number),
                KallsymsAddressForm.AbsolutePerCpu => number >= 0 ? word : unchecked(_origin + (ulong)(-1L - number)),
                _ => word,
            };
            return address & _mask;
        }
    }

    /// <summary>Whether no address lies before the one of the symbol before it, as in every kernel.</summary>
    public bool Ascend()
    {
        ulong last = 0;
        for (int i = 0; i < Count; i++)
        {
            ulong address = this[i];
            if (address < last)
            {
                return false;
            }

            last = address;
        }

        return true;
    }
}
