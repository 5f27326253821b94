namespace PvPatch.Linux.Symbols.Kallsyms;

/// <summary>The kernel's own symbols, left compressed in the image; four bytes a symbol say where each name is.</summary>
internal sealed class KallsymsStore(KallsymsNames names, KallsymsAddresses addresses) : SymbolStore
{
    /// <summary>Form in which this kernel stores addresses.</summary>
    public KallsymsAddressForm Form => addresses.Form;

    public override int Count => names.Count;

    public override ulong GetAddress(int index) => addresses[index];

    public override char GetType(int index) => names.GetType(index);

    public override ReadOnlySpan<byte> GetName(int index, Span<byte> scratch) => names.GetName(index, scratch);
}
