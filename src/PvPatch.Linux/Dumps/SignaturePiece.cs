namespace PvPatch.Linux.Dumps;

/// <summary>Bytes of a kernel image that its start leaves as they are, and where they are.</summary>
/// <param name="Address">The link address of the first byte.</param>
/// <param name="Bytes">The bytes.</param>
/// <param name="Section">The section's name.</param>
internal readonly record struct SignaturePiece(ulong Address, ReadOnlyMemory<byte> Bytes, string Section);
