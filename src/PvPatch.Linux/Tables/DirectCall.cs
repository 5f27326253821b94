using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Tables;

/// <summary>
/// An alternative of 6.8 and later that turns an indirect call into a direct one: the site is <c>call [word]</c> (ff 15, 6 bytes), the
/// replacement <c>call BUG_func</c> (e8, 5 bytes). The kernel stops at anything else, so anything else is an error here.
/// </summary>
internal static class DirectCall
{
    private const int SiteLength = 6;
    private const int CallLength = 5;

    public static bool TryReadSlotAddress(
        CodeImage code, AltInstr record, out VirtualAddress word, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        word = default;
        if (record.Length != SiteLength || !code.TryGetBytes(record.Address, SiteLength, out Span<byte> site) || site[0] != 0xff
            || site[1] != 0x15)
        {
            code.TryGetBytes(record.Address, record.Length, out Span<byte> there);
            error = PatchDiagnostic.Error(DiagnosticCodes.UnknownBytes, "there is no indirect call at the site of a direct call") with
            {
                Address = record.Address,
                Found = HexBytes.Format(there),
                Expected = "ff 15 and a 32-bit displacement",
                Help = "Is the image patched already? Give the original one.",
            };
            return false;
        }

        int displacement = BinaryPrimitives.ReadInt32LittleEndian(site[2..]);
        word = code.Bitness == 64 ? record.Address + (SiteLength + displacement) : new VirtualAddress((uint)displacement);
        error = null;
        return true;
    }

    /// <summary>The target of the replacement; all records have the same.</summary>
    public static bool TryReadBugTarget(
        ElfImage elf, AltInstr record, ref VirtualAddress? bug, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        if (record.ReplacementLength == CallLength && elf.TryGetBytes(record.ReplacementAddress, CallLength, out Memory<byte> call)
            && call.Span[0] == 0xe8)
        {
            VirtualAddress target = record.ReplacementAddress + (CallLength + BinaryPrimitives.ReadInt32LittleEndian(call.Span[1..]));
            bug ??= target;
            if (bug == target)
            {
                return true;
            }
        }

        error = PatchDiagnostic.Error(
            KernelDiagnosticCodes.AlternativeUnknown, "the replacement of a direct call is not the call that all others have") with
        {
            Address = record.Address,
            Found = $"{record.ReplacementLength} bytes at {record.ReplacementAddress}",
            Expected = $"a call of 5 bytes{(bug is VirtualAddress known ? $" to {known}" : "")}",
        };
        return false;
    }
}
