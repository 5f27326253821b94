using System.Collections;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols.Kallsyms;

namespace PvPatch.Linux.Symbols;

/// <summary>
/// The symbols of a kernel, from address to name and from name to address: out of an image with or without a symbol table, a System.map,
/// or a copy of <c>/proc/kallsyms</c>.
/// </summary>
/// <remarks>
/// Symbols of an image stay where they are in it, compressed as they are; a name is decoded when it is asked for. The first look-up by
/// name makes an index of six to eight bytes a symbol. Everything may be called from several threads at once. The bytes of the image
/// that hold the symbols must not be changed meanwhile; if they are, wrong names come out, and nothing worse.
/// </remarks>
public sealed class KernelSymbols : IReadOnlyList<KernelSymbol>
{
    private readonly SymbolStore _store;
    private readonly AddressRanges? _ranges;
    private volatile SymbolNameIndex? _names;

    private KernelSymbols(SymbolStore store, KernelSymbolSource source, AddressRanges? ranges)
    {
        _store = store;
        _ranges = ranges;
        Source = source;
    }

    /// <summary>Where the symbols came from.</summary>
    public KernelSymbolSource Source { get; }

    /// <summary>The number of symbols.</summary>
    public int Count => _store.Count;

    internal IEnumerable<KernelSymbol> All => this;

    /// <summary>
    /// One symbol, by ascending address; those of one address in the order of the source. It is decoded when it is asked for.
    /// </summary>
    /// <param name="index">From 0 to <see cref="Count"/> - 1.</param>
    public KernelSymbol this[int index]
    {
        get
        {
            ArgumentOutOfRangeException.ThrowIfNegative(index);
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(index, Count);
            return new KernelSymbol(_store.GetAddress(index), _store.GetType(index), _store.GetName(index));
        }
    }

    /// <inheritdoc/>
    public IEnumerator<KernelSymbol> GetEnumerator()
    {
        for (int i = 0; i < _store.Count; i++)
        {
            yield return this[i];
        }
    }

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    /// <summary>Opens the symbols of a kernel image: its symbol table or, as kernels of distributions have none, its kallsyms.</summary>
    /// <param name="image">An executable kernel (<c>vmlinux</c>).</param>
    /// <param name="symbols">The symbols, at link addresses.</param>
    /// <param name="error">
    /// Why there are none: PV6080 no kallsyms, PV6081 or PV6082 kallsyms that cannot be read, PV6088 not an executable, PV6016 or PV6021 a
    /// damaged symbol table where there is no kallsyms either.
    /// </param>
    /// <returns>Whether symbols were found.</returns>
    internal static bool TryFromImage(
        ElfImage image, [NotNullWhen(true)] out KernelSymbols? symbols, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentNullException.ThrowIfNull(image);
        symbols = null;
        PatchDiagnostic? tableError = null;
        if (image.Type != ElfFileType.Relocatable && image.TryReadSymbols(out ElfSymbolTable? table, out tableError))
        {
            var store = new ElfSymbolStore(image, table);
            symbols = store.Count > 0 ? new KernelSymbols(store, KernelSymbolSource.SymbolTable, AddressRanges.Of(image)) : null;
        }

        if (symbols is not null)
        {
            error = null;
            return true;
        }

        if (TryFromKallsyms(image, out symbols, out error))
        {
            return true;
        }

        // A table that is there but damaged is the better answer than one that is missing.
        error = error.Code == KernelDiagnosticCodes.KallsymsNotFound && tableError is not null
            && tableError.Code != KernelDiagnosticCodes.ElfNoSymbols ? tableError : error;
        return false;
    }

    /// <summary>
    /// Decodes the kernel's own symbols (kallsyms) out of an image, whether it has a symbol table too or not. No symbol is needed for that.
    /// </summary>
    /// <param name="image">An executable kernel (<c>vmlinux</c>) of 4.20 or later with CONFIG_KALLSYMS.</param>
    /// <param name="symbols">The symbols, at link addresses: what <c>/proc/kallsyms</c> shows without KASLR and without modules.</param>
    /// <param name="error">Why there are none: PV6080, PV6081, PV6082 or PV6088.</param>
    /// <returns>Whether symbols were found.</returns>
    internal static bool TryFromKallsyms(
        ElfImage image, [NotNullWhen(true)] out KernelSymbols? symbols, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentNullException.ThrowIfNull(image);
        symbols = null;
        if (!KallsymsReader.TryRead(image, out KallsymsStore? store, out error))
        {
            return false;
        }

        symbols = new KernelSymbols(store, KernelSymbolSource.Kallsyms, AddressRanges.Of(image));
        return true;
    }

    /// <summary>Reads a System.map: lines of an address in hexadecimal, a type letter and a name.</summary>
    /// <param name="text">The file's content. It is not kept.</param>
    /// <param name="symbols">The symbols, at link addresses.</param>
    /// <param name="error">
    /// Why there are none: PV6083 for the stand-in that distributions ship, PV6084 for a line that is not a symbol.
    /// </param>
    /// <returns>Whether the file was read.</returns>
    public static bool TryReadSystemMap(
        ReadOnlySpan<byte> text, [NotNullWhen(true)] out KernelSymbols? symbols, [NotNullWhen(false)] out PatchDiagnostic? error) =>
        TryReadListing(text, KernelSymbolSource.SystemMap, out symbols, out error);

    /// <summary>
    /// Reads a copy of <c>/proc/kallsyms</c>. Symbols with a module in brackets (modules, BPF, trampolines) are left out.
    /// </summary>
    /// <param name="text">The copy. It is not kept.</param>
    /// <param name="symbols">The symbols, at the addresses of the running kernel, which KASLR may have moved.</param>
    /// <param name="error">
    /// Why there are none: PV6084 for a line that is not a symbol, PV6085 where the kernel has hidden all addresses.
    /// </param>
    /// <returns>Whether the copy was read.</returns>
    public static bool TryReadKallsyms(
        ReadOnlySpan<byte> text, [NotNullWhen(true)] out KernelSymbols? symbols, [NotNullWhen(false)] out PatchDiagnostic? error) =>
        TryReadListing(text, KernelSymbolSource.KallsymsListing, out symbols, out error);

    /// <summary>Reads a System.map; see <see cref="TryReadSystemMap"/>.</summary>
    /// <param name="text">The file's content. It is not kept.</param>
    /// <returns>The symbols, at link addresses.</returns>
    /// <exception cref="PatchException">The text is no System.map.</exception>
    public static KernelSymbols ReadSystemMap(ReadOnlySpan<byte> text) =>
        TryReadSystemMap(text, out KernelSymbols? symbols, out PatchDiagnostic? error) ? symbols : throw new PatchException(error);

    /// <summary>Reads a copy of <c>/proc/kallsyms</c>; see <see cref="TryReadKallsyms"/>.</summary>
    /// <param name="text">The copy. It is not kept.</param>
    /// <returns>The symbols, at the addresses of the running kernel.</returns>
    /// <exception cref="PatchException">The text is no such copy.</exception>
    public static KernelSymbols ReadKallsyms(ReadOnlySpan<byte> text) =>
        TryReadKallsyms(text, out KernelSymbols? symbols, out PatchDiagnostic? error) ? symbols : throw new PatchException(error);

    /// <summary>
    /// The address of a symbol. Of several symbols of one name, which static functions may have: a global one before a local one, a
    /// function before data, then the lowest address.
    /// </summary>
    /// <param name="name">The exact name.</param>
    /// <param name="address">The address.</param>
    /// <returns>Whether there is such a symbol.</returns>
    public bool TryGetAddress(string name, out VirtualAddress address)
    {
        int best = -1;
        foreach (int index in IndicesOf(name))
        {
            best = best < 0 || SymbolPreference.RankOfType(_store.GetType(index)) < SymbolPreference.RankOfType(_store.GetType(best))
                ? index : best;
        }

        address = best < 0 ? VirtualAddress.Zero : _store.GetAddress(best);
        return best >= 0;
    }

    /// <summary>All symbols of a name.</summary>
    /// <param name="name">The exact name.</param>
    /// <returns>The symbols by ascending address; none where the name is not known.</returns>
    public IReadOnlyList<KernelSymbol> FindAll(string name) => [.. IndicesOf(name).Select(index => this[index])];

    /// <summary>All symbols at exactly an address.</summary>
    /// <param name="address">The address.</param>
    /// <returns>The symbols in the order of the source; none where no symbol is there.</returns>
    public IReadOnlyList<KernelSymbol> FindAt(VirtualAddress address)
    {
        var found = new List<KernelSymbol>();
        for (int i = _store.LowerBound(address.Value); i < _store.Count && _store.GetAddress(i) == address.Value; i++)
        {
            found.Add(this[i]);
        }

        return found;
    }

    /// <summary>
    /// The symbol an address belongs to: the nearest one at or before it. Of several at that address: code before data, global before weak
    /// before local, marks of the start or end of a section last, names that compiler or build made (with a dot, or <c>__pi_</c> in front)
    /// after those in the source, then the order of the source.
    /// </summary>
    /// <param name="address">The address.</param>
    /// <param name="name">The symbol's name.</param>
    /// <param name="offset">The distance in bytes from the symbol to the address, from 0.</param>
    /// <returns>
    /// Whether there is such a symbol. An address beyond the last symbol has none, nor one whose nearest symbol is in another section of
    /// the image.
    /// </returns>
    public bool TryGetName(VirtualAddress address, [NotNullWhen(true)] out string? name, out long offset)
    {
        name = null;
        offset = 0;
        int first = _store.LowerBound(address.Value);
        bool isExact = first < _store.Count && _store.GetAddress(first) == address.Value;
        if (!isExact && (first == 0 || first == _store.Count))
        {
            return false;
        }

        ulong at = isExact ? address.Value : _store.GetAddress(first - 1);
        if (!isExact && _ranges is not null && !_ranges.HoldsBoth(at, address.Value))
        {
            return false;
        }

        offset = unchecked((long)(address.Value - at));
        name = _store.GetName(BestAt(at));
        return true;
    }

    /// <summary>Finds a place given as <c>symbol</c> or <c>symbol+0x12</c>; see <see cref="TryResolve"/>.</summary>
    /// <param name="place">The place.</param>
    /// <returns>Its address.</returns>
    /// <exception cref="PatchException">PV6087 for another form, PV6086 for a symbol that does not exist.</exception>
    public VirtualAddress Resolve(string place) =>
        TryResolve(place, out VirtualAddress address, out PatchDiagnostic? error) ? address : throw new PatchException(error);

    /// <summary>
    /// Finds a place given as <c>symbol</c>, <c>symbol+0x12</c>, <c>symbol+18</c> or, as in the kernel's messages, <c>symbol+0x12/0x40</c>.
    /// </summary>
    /// <param name="place">The place.</param>
    /// <param name="address">Its address; the symbol is chosen as by <see cref="TryGetAddress"/>.</param>
    /// <param name="error">Why there is none: PV6087 for another form, PV6086 for a symbol that does not exist.</param>
    /// <returns>Whether the place was found.</returns>
    public bool TryResolve(string place, out VirtualAddress address, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentNullException.ThrowIfNull(place);
        address = VirtualAddress.Zero;
        if (!SymbolPlace.TryParse(place, out SymbolPlace parsed, out error))
        {
            return false;
        }

        if (!TryGetAddress(parsed.Name, out VirtualAddress start))
        {
            error = parsed.Unknown(Count);
            return false;
        }

        address = unchecked(start.Value + parsed.Offset);
        return true;
    }

    /// <summary>The symbols whose names start with a prefix, by ascending address. Every name is looked at.</summary>
    internal IReadOnlyList<KernelSymbol> StartingWith(string prefix)
    {
        byte[] wanted = System.Text.Encoding.UTF8.GetBytes(prefix);
        var found = new List<KernelSymbol>();
        Span<byte> scratch = stackalloc byte[SymbolStore.ScratchSize];
        for (int i = 0; i < _store.Count; i++)
        {
            if (_store.GetName(i, scratch).StartsWith(wanted))
            {
                found.Add(this[i]);
            }
        }

        return found;
    }

    private static bool TryReadListing(
        ReadOnlySpan<byte> text, KernelSymbolSource source, [NotNullWhen(true)] out KernelSymbols? symbols,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        symbols = SymbolListingReader.TryRead(text, out TextSymbolStore? store, out error) ? new KernelSymbols(store, source, null) : null;
        return symbols is not null;
    }

    private IEnumerable<int> IndicesOf(string name)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        byte[] wanted = System.Text.Encoding.UTF8.GetBytes(name);

        // Two threads may both make it; they make the same.
        return (_names ??= new SymbolNameIndex(_store)).FindAll(wanted);
    }

    private int BestAt(ulong address)
    {
        Span<byte> scratch = stackalloc byte[SymbolStore.ScratchSize];
        int best = -1;
        int bestRank = int.MaxValue;
        for (int i = _store.LowerBound(address); i < _store.Count && _store.GetAddress(i) == address; i++)
        {
            int rank = SymbolPreference.Rank(_store.GetType(i), _store.GetName(i, scratch));
            if (rank < bestRank)
            {
                best = i;
                bestRank = rank;
            }
        }

        return best;
    }
}
