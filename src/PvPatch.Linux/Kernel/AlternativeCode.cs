using System.Buffers.Binary;
using Iced.Intel;
using PvPatch.Encoding;

namespace PvPatch.Linux.Kernel;

/// <summary>What an era's kernel makes of the bytes of an alternative: moved to its site, padded, nops merged. Pure.</summary>
internal sealed class AlternativeCode
{
    private readonly AlternativeRules _rules;
    private readonly int _bitness;
    private readonly NopStyle _nops;

    public AlternativeCode(AlternativeRules rules, int bitness)
    {
        _rules = rules;
        _bitness = bitness;
        _nops = rules.Nops(bitness);
    }

    /// <summary>The bytes that stand at a site once a replacement was applied.</summary>
    /// <param name="replacement">The replacement's bytes, no more than <paramref name="length"/>.</param>
    /// <param name="from">Where they lie.</param>
    /// <param name="site">Where they go.</param>
    /// <param name="length">The site's length.</param>
    public byte[] Apply(ReadOnlySpan<byte> replacement, VirtualAddress from, VirtualAddress site, int length)
    {
        byte[] code = new byte[length];
        replacement.CopyTo(code);
        code.AsSpan(replacement.Length).Fill(0x90);
        if (_rules.Relocation == ReplacementRelocation.EveryInstruction)
        {
            RelocateAll(code, replacement.Length, from, site);
        }
        else if (replacement.Length == 5)
        {
            RelocateBranch(code, from, site);
        }

        MergeNops(code);
        return code;
    }

    /// <summary>What the kernel does to any bytes of an alternative, replaced or not.</summary>
    public void MergeNops(Span<byte> code)
    {
        // Only whole instructions count: 0x90 within an operand is no nop.
        bool any = _rules.Merging == NopMerging.RunsOfAnyNops;
        var decoder = Decoder.Create(_bitness, code.ToArray());
        int start = -1;
        int count = 0;
        while (decoder.IP < (ulong)code.Length)
        {
            int at = (int)decoder.IP;
            decoder.Decode(out Instruction instruction);
            bool nop = any ? IsNop(instruction, code[at..]) : code[at] == 0x90 && instruction.Length == 1;
            if (nop)
            {
                start = start < 0 ? at : start;
                count++;
            }

            if (!nop || decoder.IP >= (ulong)code.Length)
            {
                int end = nop ? code.Length : at;
                if (count > 1)
                {
                    _nops.Fill(code[start..end]);
                }

                start = -1;
                count = 0;
            }

            if (instruction.IsInvalid)
            {
                return; // the kernel stops here too: what does not decode stays as it is
            }
        }
    }

    /// <summary>0x90 but not pause (f3 90), and 0f 1f with whatever prefixes.</summary>
    private static bool IsNop(in Instruction instruction, ReadOnlySpan<byte> bytes) =>
        !instruction.IsInvalid && instruction.Mnemonic == Mnemonic.Nop && bytes[0] != 0xf3;

    private static void RelocateBranch(Span<byte> code, VirtualAddress from, VirtualAddress site)
    {
        int move = unchecked((int)(from - site));
        if (code[0] == 0xe8)
        {
            // call rel32: same target, another place
            AddTo(code[1..], move);
        }
        else if (code[0] == 0xe9)
        {
            // jmp rel32, made short where it goes forward and fits; the test for going back can never hold, so those stay long
            AddTo(code[1..], move);
            int distance = BinaryPrimitives.ReadInt32LittleEndian(code[1..]) + 3; // the short form ends three bytes earlier
            if (distance is >= 0 and <= 127)
            {
                code[0] = 0xeb;
                code[1] = (byte)distance;
                NopStyle.P6.Fill(code[2..5]); // 0f 1f 00
            }
        }
    }

    private void RelocateAll(Span<byte> code, int length, VirtualAddress from, VirtualAddress site)
    {
        var decoder = Decoder.Create(_bitness, code.ToArray(), from.Value);
        ulong end = from.Value + (ulong)length;
        int move = unchecked((int)(from - site));
        while (decoder.IP < from.Value + (ulong)code.Length)
        {
            decoder.Decode(out Instruction instruction);
            if (instruction.IsInvalid)
            {
                return;
            }

            int at = (int)(instruction.IP - from.Value);
            ConstantOffsets offsets = decoder.GetConstantOffsets(instruction);
            bool branch = instruction.Op0Kind is OpKind.NearBranch32 or OpKind.NearBranch64;
            if (branch && Leaves(instruction.NearBranchTarget) && offsets.ImmediateSize == 4)
            {
                AddTo(code[(at + offsets.ImmediateOffset)..], move);
                ShortenJump(code, at, instruction.Length);
            }

            if (instruction.IsIPRelativeMemoryOperand && Leaves(instruction.IPRelativeMemoryAddress))
            {
                AddTo(code[(at + offsets.DisplacementOffset)..], move);
            }
        }

        bool Leaves(ulong target) => target < from.Value || target > end;
    }

    private static void ShortenJump(Span<byte> code, int at, int length)
    {
        int distance = length == 5 ? BinaryPrimitives.ReadInt32LittleEndian(code[(at + 1)..]) + 3 : 0;
        if (code[at] == 0xe9 && length == 5 && distance is >= sbyte.MinValue and <= sbyte.MaxValue)
        {
            code[at] = 0xeb; // jmp rel8; int3 in what is left, where nothing ever runs
            code[at + 1] = (byte)distance;
            code.Slice(at + 2, 3).Fill(0xcc);
        }
    }

    private static void AddTo(Span<byte> field, int move) =>
        BinaryPrimitives.WriteInt32LittleEndian(field, unchecked(BinaryPrimitives.ReadInt32LittleEndian(field) + move));
}
