using System.Buffers.Binary;

namespace PvPatch.Linux.Symbols.Kallsyms;

/// <summary>
/// Finds the addresses that belong to names. Up to 6.3 they stand before the number of symbols, base last; since 6.4 behind the
/// tokens, base last, and since 7.0 without one. Which form they have is not written anywhere: the right one gives ascending addresses
/// and puts <c>_text</c> or <c>_stext</c> where code starts.
/// </summary>
internal sealed class KallsymsAddressFinder
{
    private readonly KallsymsRegion _region;
    private readonly KallsymsTokens _tokens;
    private readonly KallsymsNames _names;
    private readonly IReadOnlyList<ulong> _codeStarts;

    /// <param name="region">The region that holds the tables.</param>
    /// <param name="tokens">The tokens.</param>
    /// <param name="names">The names.</param>
    /// <param name="codeStarts">The addresses at which the image's pieces of code start.</param>
    public KallsymsAddressFinder(KallsymsRegion region, KallsymsTokens tokens, KallsymsNames names, IReadOnlyList<ulong> codeStarts)
    {
        _region = region;
        _tokens = tokens;
        _names = names;
        _codeStarts = codeStarts;
    }

    public KallsymsStore? Find()
    {
        long size = _names.Count * 4L;
        int addressSize = _region.AddressSize;

        // Up to 6.3. Both the base and the number of symbols are aligned, so the base ends where the number starts.
        long baseOffset = _names.CountOffset - (long)addressSize;
        long start = _region.AlignDown(baseOffset - size, addressSize);
        if (start >= 0 && TryBased(start, baseOffset) is { } before)
        {
            return before;
        }

        // Since 6.4; the offsets of the tokens need no filling behind them.
        start = _tokens.IndexEnd;
        if (start + size > _region.Length)
        {
            return null;
        }

        baseOffset = _region.AlignUp(start + size, addressSize);
        KallsymsStore? based = baseOffset + addressSize <= _region.Length ? TryBased(start, baseOffset) : null;
        return based ?? TryForm(KallsymsAddressForm.PlaceRelative, start, null) ?? TryForm(KallsymsAddressForm.Absolute, start, null);
    }

    private KallsymsStore? TryBased(long start, long baseOffset) =>
        TryForm(KallsymsAddressForm.AbsolutePerCpu, start, baseOffset) ?? TryForm(KallsymsAddressForm.BaseRelative, start, baseOffset);

    private KallsymsStore? TryForm(KallsymsAddressForm form, long start, long? baseOffset)
    {
        bool only64 = form == KallsymsAddressForm.AbsolutePerCpu;
        bool only32 = form == KallsymsAddressForm.Absolute;
        if ((only64 && !_region.Is64) || (only32 && _region.Is64))
        {
            return null;
        }

        var addresses = new KallsymsAddresses(_region, (int)start, _names.Count, form, baseOffset is long at ? ReadAddress(at) : 0);
        var store = new KallsymsStore(_names, addresses);
        return addresses.Ascend() && HasStartOfCode(store) ? store : null;
    }

    private bool HasStartOfCode(KallsymsStore store)
    {
        Span<byte> scratch = stackalloc byte[SymbolStore.ScratchSize];
        foreach (ulong start in _codeStarts)
        {
            for (int i = store.LowerBound(start); i < store.Count && store.GetAddress(i) == start; i++)
            {
                ReadOnlySpan<byte> name = store.GetName(i, scratch);
                if (name.SequenceEqual("_text"u8) || name.SequenceEqual("_stext"u8))
                {
                    return true;
                }
            }
        }

        return false;
    }

    private ulong ReadAddress(long offset)
    {
        ReadOnlySpan<byte> bytes = _region.Bytes.Span[(int)offset..];
        return _region.Is64 ? BinaryPrimitives.ReadUInt64LittleEndian(bytes) : BinaryPrimitives.ReadUInt32LittleEndian(bytes);
    }
}
