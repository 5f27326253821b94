using System.Diagnostics.CodeAnalysis;
using System.Text;
using PvPatch.Images;

namespace PvPatch.Records;

/// <summary>Names that records refer to: text that ends with 0, each decoded once.</summary>
internal sealed class RecordNames(CodeSegment? names)
{
    /// <summary>The longest name in bytes, so that one name can't be as long as the file, read anew for each record.</summary>
    public const int LongestName = 255;

    private static readonly UTF8Encoding s_strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    private readonly Dictionary<ulong, string> _known = [];

    /// <summary>The name at an address.</summary>
    /// <param name="address">Run address of its first byte; 0 for no name.</param>
    /// <param name="name">The name; <see langword="null"/> where there is none.</param>
    /// <param name="error">PV1013: the name is outside the section, without an end, empty, or no text.</param>
    public bool TryGet(VirtualAddress address, out string? name, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        if (address.Value == 0 || _known.TryGetValue(address.Value, out name))
        {
            name = address.Value == 0 ? null : _known[address.Value];
            return true;
        }

        name = null;
        if (names is null || !names.Contains(address, 1))
        {
            error = Bad("lies outside the section of names", address.ToString(), names is null ? "no section of names" : names.ToString());
            return false;
        }

        ReadOnlySpan<byte> rest = names.Bytes.Span[(int)(address - names.Address)..];
        int length = rest[..Math.Min(rest.Length, LongestName + 1)].IndexOf((byte)0);
        if (length <= 0)
        {
            error = Bad(length == 0 ? "is empty" : "has no end", HexBytes.Format(rest[..Math.Min(rest.Length, 16)]),
                $"1 to {LongestName} bytes and a 0");
            return false;
        }

        try
        {
            name = s_strict.GetString(rest[..length]);
        }
        catch (DecoderFallbackException)
        {
            name = "\0";
        }

        if (name.AsSpan().IndexOfAnyInRange('\0', '\u001f') >= 0)
        {
            name = null;
            error = Bad("is no text", HexBytes.Format(rest[..Math.Min(length, 16)]), "UTF-8 without control characters");
            return false;
        }

        _known.Add(address.Value, name);
        return true;
    }

    private static PatchDiagnostic Bad(string what, string found, string expected) =>
        PatchDiagnostic.Error(DiagnosticCodes.RecordName, $"the name of the record {what}") with { Found = found, Expected = expected };
}

/// <summary>Finds sites that share bytes. The pieces of code for one region are records of one site; all others must be apart.</summary>
internal sealed class RecordOverlaps
{
    private readonly List<(ulong Address, int Length, int Index, RecordMechanism Mechanism)> _sites = [];

    public void Add(int index, RecordMechanism mechanism, VirtualAddress address, int length) =>
        _sites.Add((address.Value, length, index, mechanism));

    /// <summary>Reports PV1003 and PV1004.</summary>
    public void Check(DiagnosticList found)
    {
        _sites.Sort();
        for (int i = 1; i < _sites.Count; i++)
        {
            // Sites end inside the address space and are sorted, so what overlaps any site before overlaps the one that ends last of them:
            // the one just before, as every earlier overlap was reported already.
            (ulong address, int length, int index, RecordMechanism mechanism) = _sites[i];
            (ulong Address, int Length, int Index, RecordMechanism Mechanism) before = _sites[i - 1];
            bool oneRegion = mechanism >= RecordMechanism.Variant && mechanism == before.Mechanism && address == before.Address
                && length == before.Length;
            if (oneRegion || address - before.Address >= (ulong)before.Length)
            {
                continue;
            }

            bool same = address == before.Address;
            found.Add(PatchDiagnostic.Error(
                same ? DiagnosticCodes.SiteDuplicate : DiagnosticCodes.SiteOverlap,
                same ? $"the site has the address of record {before.Index}" : $"the site overlaps that of record {before.Index}") with
            {
                SiteIndex = index,
                Address = new VirtualAddress(address),
                Found = $"{new VirtualAddress(before.Address)}+{before.Length} and {new VirtualAddress(address)}+{length}",
                Expected = "sites that share no byte",
            });
        }
    }
}
