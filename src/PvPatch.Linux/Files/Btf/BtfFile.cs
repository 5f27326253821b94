using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Linux.Files;

/// <summary>
/// The type information of a kernel (section <c>.BTF</c>): an index over the caller's bytes, which it keeps and does not copy. Make it once
/// to look up several structs.
/// </summary>
internal sealed class BtfFile
{
    private const int MaxNameLength = 512;

    private readonly ReadOnlyMemory<byte> _types;
    private readonly ReadOnlyMemory<byte> _strings;
    private readonly int[] _offsets;

    private BtfFile(ReadOnlyMemory<byte> types, int typesAt, ReadOnlyMemory<byte> strings, int[] offsets, int typeCount)
    {
        _types = types;
        _strings = strings;
        _offsets = offsets;
        TypesAt = typesAt;
        TypeCount = typeCount;
    }

    /// <summary>The number of types, <c>void</c> (type 0) included.</summary>
    public int TypeCount { get; }

    /// <summary>Offset of the types in the data, for messages.</summary>
    internal int TypesAt { get; }

    internal ReadOnlySpan<byte> Types => _types.Span;

    /// <summary>Checks the header and finds every type.</summary>
    /// <param name="btf">The whole data, little-endian, as from the section <c>.BTF</c>.</param>
    /// <param name="file">The index.</param>
    /// <param name="error">What is wrong: codes PV6050 to PV6052; its file offset counts from the start of the data.</param>
    /// <returns>Whether the data is sound as far as the boundaries of its types.</returns>
    public static bool TryRead(
        ReadOnlyMemory<byte> btf, [NotNullWhen(true)] out BtfFile? file, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        file = null;
        if (!BtfHeader.TryRead(btf.Span, out BtfHeader header, out error)
            || !TryIndex(btf.Span[header.Types], header.Types.Start.Value, out int[]? offsets, out int count, out error))
        {
            return false;
        }

        file = new BtfFile(btf[header.Types], header.Types.Start.Value, btf[header.Strings], offsets, count);
        return true;
    }

    /// <summary>Looks for a struct and lays its members flat: see <see cref="BtfStructLayout"/>.</summary>
    /// <param name="structName">The name of the struct, without the word <c>struct</c>.</param>
    /// <param name="bitness">32 or 64: BTF does not say how wide a pointer is.</param>
    /// <param name="layout">The struct.</param>
    /// <param name="error">What is wrong: codes PV6053 to PV6057.</param>
    /// <returns>Whether there is one such struct, and it could be laid flat.</returns>
    public bool TryReadStruct(
        string structName, int bitness, [NotNullWhen(true)] out BtfStruct? layout, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentException.ThrowIfNullOrEmpty(structName);
        if (bitness is not (32 or 64))
        {
            throw new ArgumentOutOfRangeException(nameof(bitness), bitness, "32 or 64");
        }

        layout = null;
        return TryFindStruct(structName, out BtfTypeRecord record, out error)
            && new BtfFlattener(this, structName, bitness / 8).TryFlatten(record, out layout, out error);
    }

    /// <summary>A type by its number; false for numbers without a type. Type 0 is <c>void</c>.</summary>
    internal bool TryGetType(uint id, out BtfTypeRecord record)
    {
        record = default;
        if (id >= (uint)TypeCount)
        {
            return false;
        }

        if (id != 0)
        {
            record = new BtfTypeRecord(_types.Span, _offsets[(int)id]);
        }

        return true;
    }

    /// <summary>A name by its offset; false where it lies outside the strings or is absurdly long.</summary>
    internal bool TryGetName(uint offset, out ReadOnlySpan<byte> name)
    {
        name = default;
        if (offset >= (uint)_strings.Length)
        {
            return false;
        }

        ReadOnlySpan<byte> rest = _strings.Span[(int)offset..];
        int end = rest[..Math.Min(rest.Length, MaxNameLength + 1)].IndexOf((byte)0);
        name = rest[..Math.Max(end, 0)];
        return end >= 0;
    }

    private static bool TryIndex(ReadOnlySpan<byte> types, int typesAt, [NotNullWhen(true)] out int[]? offsets, out int count,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        // Every type takes 12 bytes at least, so this is enough room whatever the data says: a third of its size. Number 0
        // is void and has no record.
        int[] found = GC.AllocateUninitializedArray<int>((types.Length / BtfTypeRecord.HeaderSize) + 1);
        offsets = null;
        count = 1;
        int at = 0;
        while (at < types.Length)
        {
            if (types.Length - at < BtfTypeRecord.HeaderSize)
            {
                error = BadType(count, typesAt + at, "is cut short", $"{types.Length - at} bytes", "12 bytes");
                return false;
            }

            var record = new BtfTypeRecord(types, at);
            int trailing = record.TrailingSize;
            if (trailing < 0)
            {
                error = BadType(count, typesAt + at, "is of an unknown kind", $"kind {(int)record.Kind}", "kind 1 to 19");
                return false;
            }

            if (trailing > types.Length - at - BtfTypeRecord.HeaderSize)
            {
                error = BadType(
                    count, typesAt + at, "is cut short", $"{types.Length - at} bytes", $"{trailing + BtfTypeRecord.HeaderSize} bytes");
                return false;
            }

            found[count++] = at;
            at += BtfTypeRecord.HeaderSize + trailing;
        }

        offsets = found;
        error = null;
        return true;
    }

    /// <summary>The one struct of a name.</summary>
    internal bool TryFindStruct(string structName, out BtfTypeRecord record, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ReadOnlySpan<byte> wanted = System.Text.Encoding.UTF8.GetBytes(structName);
        ReadOnlySpan<byte> types = Types;
        ReadOnlySpan<byte> strings = _strings.Span;
        record = default;
        int found = 0;
        for (int id = 1; id < TypeCount; id++)
        {
            var candidate = new BtfTypeRecord(types, _offsets[id]);
            if (candidate.Kind != BtfKind.Struct || !HasName(strings, candidate.NameOffset, wanted))
            {
                continue;
            }

            if (found != 0 && (record.SizeOrType != candidate.SizeOrType || record.Count != candidate.Count))
            {
                error = PatchDiagnostic.Error(
                    KernelDiagnosticCodes.BtfStructAmbiguous, $"The BTF data describes two different structs {structName}") with
                {
                    FileOffset = TypesAt + candidate.Offset,
                    Found = $"type {found} of {record.SizeOrType} bytes and type {id} of {candidate.SizeOrType} bytes",
                    Expected = "one struct",
                    Help = "Choose the slots by kernel version instead",
                };
                return false;
            }

            record = found == 0 ? candidate : record;
            found = found == 0 ? id : found;
        }

        error = found != 0 ? null
            : PatchDiagnostic.Error(KernelDiagnosticCodes.BtfStructMissing, $"The BTF data does not describe struct {structName}") with
            {
                Found = $"{TypeCount - 1} types",
                Help = "The kernel was built without paravirt support; or choose the slots by kernel version",
            };
        return found != 0;
    }

    private static bool HasName(ReadOnlySpan<byte> strings, uint offset, ReadOnlySpan<byte> wanted)
    {
        // The strings end with NUL, so the name's own terminator is there to compare too.
        return strings.Length > wanted.Length
            && offset < (uint)(strings.Length - wanted.Length)
            && strings[(int)offset + wanted.Length] == 0
            && strings.Slice((int)offset, wanted.Length).SequenceEqual(wanted);
    }

    private static PatchDiagnostic BadType(int id, long at, string what, string found, string expected) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.BtfBadType, $"BTF type {id} {what}") with
        {
            FileOffset = at,
            Found = found,
            Expected = expected,
            Help = "The section is damaged, or the kernel is newer than this reader; choose the slots by kernel version",
        };
}
