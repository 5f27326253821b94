using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Images;
using PvPatch.Sites.Formats;

namespace PvPatch.Linux.Kernel;

/// <summary>
/// Finds the ops table by the sites themselves: each calls through table + word * type, so operand minus that is the same address
/// at all of them (kernels from 4.20 on, which have one table). Needs no symbols.
/// </summary>
internal static class PvOpsLocator
{
    public static bool TryFind(
        CodeImage code, ReadOnlySpan<ParaInstruction> records, [NotNullWhen(true)] out VirtualAddress? table, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        // The most frequent answer, so that one record that lies is found out by the others and not the other way round.
        var votes = new Dictionary<ulong, int>();
        foreach (ParaInstruction record in records)
        {
            if (TryReadOperand(code, record, out ulong operand))
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
        error = PatchDiagnostic.Error(KernelDiagnosticCodes.OpsTableNotFound, "the address of the ops table cannot be told from the sites") with
        {
            Found = $"{count} of {records.Length} sites that agree",
            Expected = "indirect calls through one table at most sites",
            Help = "An image that is patched already has no indirect calls left: give the original image.",
        };
        return false;
    }

    private static bool TryReadOperand(CodeImage code, ParaInstruction record, out ulong operand)
    {
        operand = 0;
        if (!code.TryGetBytes(record.Address, record.Length, out Span<byte> site) || site.Length < 6 || site[0] != 0xff)
        {
            return false;
        }

        if (site[1] is 0x15 or 0x25)
        {
            // call / jmp [rip+disp32]; in 32-bit code [disp32]
            int displacement = BinaryPrimitives.ReadInt32LittleEndian(site[2..]);
            operand = code.Bitness == 64 ? unchecked(record.Address.Value + 6 + (ulong)displacement) : (uint)displacement;
            return true;
        }

        if (site.Length >= 7 && site[1] is 0x14 or 0x24 && site[2] == 0x25)
        {
            // call / jmp [abs32], sign-extended (to 5.10)
            operand = unchecked((ulong)BinaryPrimitives.ReadInt32LittleEndian(site[3..]));
            return true;
        }

        return false;
    }
}
