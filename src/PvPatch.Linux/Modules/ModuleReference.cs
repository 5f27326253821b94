namespace PvPatch.Linux.Modules;

/// <summary>Why a relocation could not be done.</summary>
internal enum UnresolvedReason : byte
{
    /// <summary>Nothing has the symbol.</summary>
    UnknownSymbol,

    /// <summary>The value does not fit the field.</summary>
    OutOfReach,

    /// <summary>The relocation is of a type that modules do not have.</summary>
    UnknownType,
}

/// <summary>A relocation that could not be done; its place holds what the file holds.</summary>
/// <param name="Address">Run address of the first byte of its place.</param>
/// <param name="Symbol">The index of the symbol it refers to.</param>
/// <param name="Width">The size of its place in bytes.</param>
/// <param name="Reason">Why.</param>
internal readonly record struct ModuleReference(ulong Address, int Symbol, byte Width, UnresolvedReason Reason);
