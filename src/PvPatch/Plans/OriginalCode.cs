using Iced.Intel;

namespace PvPatch.Plans;

/// <summary>What compilers and old assembly code leave at a site before it is patched.</summary>
internal static class OriginalCode
{
    /// <summary>
    /// Whether code is one call or jump through a slot's word, nops, and registers saved before it and taken back behind it in the reverse
    /// order:
    /// <code>
    /// 50              push rax            (old assembly code)
    /// ff 15 xx xx xx xx  call [rip+word]
    /// 58              pop rax
    /// </code>
    /// </summary>
    /// <param name="code">The code.</param>
    /// <param name="address">Run address of its first byte.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="word">Run address of the slot's word.</param>
    public static bool IsOf(ReadOnlySpan<byte> code, VirtualAddress address, int bitness, ulong word)
    {
        var decoder = Decoder.Create(bitness, code.ToArray(), address.Value);
        var saved = new Stack<Register>();
        int transfers = 0;
        int at = 0;
        while (at < code.Length)
        {
            decoder.Decode(out Instruction instruction);
            at += instruction.Length;
            switch (instruction.Mnemonic)
            {
                case Mnemonic.Nop:
                    break;
                case Mnemonic.Push when instruction.Op0Kind == OpKind.Register && transfers == 0:
                    saved.Push(instruction.Op0Register);
                    break;
                case Mnemonic.Pop when instruction.Op0Kind == OpKind.Register && transfers == 1
                    && saved.TryPop(out Register register) && register == instruction.Op0Register:
                    break;
                case Mnemonic.Call or Mnemonic.Jmp when IsThrough(instruction, bitness, word):
                    transfers++;
                    break;
                default:
                    return false;
            }
        }

        return at == code.Length && saved.Count == 0 && transfers == 1;
    }

    /// <summary>Whether code is one instruction, and nops before or behind it.</summary>
    /// <param name="code">The code.</param>
    /// <param name="wanted">The instruction.</param>
    /// <param name="bitness">32 or 64.</param>
    public static bool IsAndNops(ReadOnlySpan<byte> code, ReadOnlySpan<byte> wanted, int bitness)
    {
        var decoder = Decoder.Create(bitness, code.ToArray());
        bool found = false;
        int at = 0;
        while (at < code.Length)
        {
            decoder.Decode(out Instruction instruction);
            bool isIt = !found && code.Slice(at, instruction.Length).SequenceEqual(wanted);
            if (!isIt && instruction.Mnemonic != Mnemonic.Nop)
            {
                return false;
            }

            found |= isIt;
            at += instruction.Length;
        }

        return found && at == code.Length;
    }

    private static bool IsThrough(in Instruction instruction, int bitness, ulong word) =>
        instruction.Op0Kind == OpKind.Memory && instruction.IsCallNearIndirect | instruction.IsJmpNearIndirect
        && instruction.MemoryBase is Register.None or Register.RIP && instruction.MemoryIndex == Register.None
        && instruction.SegmentPrefix is Register.None or Register.CS or Register.DS or Register.ES or Register.SS
        && word == Extended(instruction, bitness);

    /// <summary>The address in an instruction. Without rip, four bytes of it are extended by sign in 64-bit code.</summary>
    private static ulong Extended(in Instruction instruction, int bitness) =>
        bitness == 32 || instruction.MemoryBase == Register.RIP ? instruction.MemoryDisplacement64
        : unchecked((ulong)(int)(uint)instruction.MemoryDisplacement64);
}
