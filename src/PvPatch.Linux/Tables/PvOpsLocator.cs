using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Tables;

/// <summary>
/// Finds the ops table by the sites themselves: each calls through table + word * type, so operand minus that is the same address
/// at all of them (2.6.22, 2.6.23 and from 4.20 on, which have one table). Needs no symbols.
/// </summary>
internal static class PvOpsLocator
{
    public static bool TryFind(
        CodeImage code, ReadOnlySpan<ParaInstruction> records, [NotNullWhen(true)] out VirtualAddress? table,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        // The most frequent answer, so that one record that lies is found out by the others and not the other way round.
        var votes = new Dictionary<ulong, int>();
        foreach (ParaInstruction record in records)
        {
            if (SiteOperand.TryRead(code, record, out ulong operand, out _))
            {
                ulong candidate = operand - (ulong)record.Type * (ulong)(code.Bitness / 8);
                votes[candidate] = votes.GetValueOrDefault(candidate) + 1;
            }
        }

        (ulong address, int count) = votes.OrderByDescending(static v => v.Value).ThenBy(static v => v.Key).FirstOrDefault();
        if (count * 2 > records.Length)
        {
            table = address;
            error = null;
            return true;
        }

        table = null;
        error = PatchDiagnostic.Error(
            KernelDiagnosticCodes.OpsTableNotFound, "the address of the ops table cannot be told from the sites") with
        {
            Found = $"{count} of {records.Length} sites that agree",
            Expected = "indirect calls through one table at most sites",
            Help = "An image that is patched already has no indirect calls left: give the original image.",
        };
        return false;
    }
}
