using System.Globalization;
using System.Text;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>
/// A body as it is put out of line: its bytes and what they refer to. Equal contents are one object in a store, so that a host which makes the same backend again
/// and again does not fill its arena with the same code.
/// </summary>
internal sealed class CodeContent(AssembledBody body, int number = 0)
{
    /// <summary>e9 rel32, or c3.</summary>
    public const int LongestEnd = 5;

    public AssembledBody Body { get; } = body;

    /// <summary>Its number in the store.</summary>
    public int Number { get; } = number;

    /// <summary>The longest it gets, with the way back behind it.</summary>
    public int MaxLength => Body.Bytes.Length + LongestEnd;

    /// <summary>What makes two contents the same.</summary>
    public static string KeyOf(AssembledBody body)
    {
        var key = new StringBuilder(Convert.ToHexString(body.Bytes.Span));
        foreach (CodeFixup fixup in body.Fixups)
        {
            key.Append(CultureInfo.InvariantCulture, $" {fixup.Offset}:{fixup.Target}");
        }

        return key.ToString();
    }

    /// <summary>Writes the body for an address.</summary>
    /// <returns>Whether everything it refers to is in reach.</returns>
    public bool TryWrite(VirtualAddress address, Span<byte> destination)
    {
        Body.Bytes.Span.CopyTo(destination);
        return Displacement.TryFill(destination, Body.FixupSpan, address, Body.Bitness);
    }
}
