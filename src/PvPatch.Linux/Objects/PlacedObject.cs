using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Objects;

/// <summary>
/// An ELF file whose sections have addresses: a linked file as it is, or a copy of an object file that was placed and relocated.
/// </summary>
internal sealed class PlacedObject
{
    private readonly UnresolvedRelocations _unresolved;
    private readonly ObjectSymbols? _symbols;

    private PlacedObject(ElfImage elf, ObjectPlacement? placement, ObjectSymbols? symbols, List<UnresolvedRelocation> unresolved)
    {
        Elf = elf;
        Placement = placement;
        Code = elf.ToCode();
        _symbols = symbols;
        _unresolved = new UnresolvedRelocations(unresolved);
    }

    /// <summary>The file with addresses.</summary>
    public ElfImage Elf { get; }

    /// <summary>Where the sections of an object file lie; none for a linked file.</summary>
    public ObjectPlacement? Placement { get; }

    /// <summary>Its code at run addresses.</summary>
    public CodeImage Code { get; }

    /// <summary>Places a file.</summary>
    /// <param name="file">The file.</param>
    /// <param name="table">Its symbols; none for a file without.</param>
    /// <param name="start">The address of the first section of an object file.</param>
    /// <param name="known">Addresses of symbols that an object file does not define.</param>
    /// <param name="placed">The placed file.</param>
    /// <param name="error">PV6180, PV6018, or PV6142 for damaged relocations.</param>
    public static bool TryMake(
        ElfImage file, ElfSymbolTable? table, VirtualAddress start, IReadOnlyDictionary<string, VirtualAddress> known,
        [NotNullWhen(true)] out PlacedObject? placed, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        placed = null;
        if (file.Type != ElfFileType.Relocatable)
        {
            error = null;
            placed = new PlacedObject(file, null, null, []);
            return true;
        }

        if (!ObjectPlacement.TryPlace(file, start, out ObjectPlacement? placement, out error)
            || !PlacedElf.TryMake(file, placement.Addresses, out ElfImage? elf, out error))
        {
            return false;
        }

        var symbols = new ObjectSymbols(file, table, placement.Addresses, known);
        if (!ElfRelocator.TryApply(file, elf, symbols, out List<UnresolvedRelocation>? unresolved, out error))
        {
            return false;
        }

        placed = new PlacedObject(elf, placement, symbols, unresolved);
        return true;
    }

    /// <summary>Whether all relocations of a range were done.</summary>
    /// <param name="address">The range's first address.</param>
    /// <param name="length">Its length in bytes.</param>
    public bool IsResolved(VirtualAddress address, long length) => !_unresolved.TryFind(address, length, out _);

    /// <summary>Whether all relocations of a range were done, and what to say where not.</summary>
    /// <param name="address">The range's first address.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <param name="what">What it is, for the message.</param>
    /// <param name="error">PV6181 with the first one.</param>
    public bool TryCheck(VirtualAddress address, long length, string what, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = !_unresolved.TryFind(address, length, out UnresolvedRelocation found) ? null : PatchDiagnostic.Error(
            KernelDiagnosticCodes.ObjectUnresolved, $"{what} refers to {_symbols!.Describe(found.Symbol)}, {Say(found.Reason)}") with
        {
            Address = found.Address,
            Help = "Link the file, or give the symbol's address (ObjectOptions.Symbols).",
        };
        return error is null;
    }

    private static string Say(UnresolvedReason reason) => reason switch
    {
        UnresolvedReason.UnknownSymbol => "whose address is not known",
        UnresolvedReason.OutOfReach => "which is out of reach",
        _ => "in a way that is not known",
    };
}
