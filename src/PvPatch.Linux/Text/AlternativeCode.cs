using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using Iced.Intel;
using PvPatch.Linux.Eras;
using PvPatch.Machine;

namespace PvPatch.Linux.Text;

/// <summary>The bytes that an era's kernel writes for an alternative: moved to its site, padded, nops merged. Pure.</summary>
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
    /// <param name="code">The bytes.</param>
    /// <returns>Whether everything the replacement refers to is in reach of the site.</returns>
    public bool TryApply(
        ReadOnlySpan<byte> replacement, VirtualAddress from, VirtualAddress site, int length, [NotNullWhen(true)] out byte[]? code)
    {
        byte[] bytes = new byte[length];
        replacement.CopyTo(bytes);
        bytes.AsSpan(replacement.Length).Fill(0x90);
        bool reaches = _rules.Relocation == ReplacementRelocation.EveryInstruction ? RelocateAll(bytes, replacement.Length, from, site)
            : replacement.Length != 5 || RelocateBranch(bytes, from - site);
        MergeNops(bytes);
        code = reaches ? bytes : null;
        return reaches;
    }

    /// <summary>Steps applied to the bytes of every alternative, replaced or not.</summary>
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

    private bool RelocateBranch(Span<byte> code, long move)
    {
        if (code[0] == 0xe8)
        {
            return TryAdd(code[1..], move); // call rel32: same target, another place
        }

        if (code[0] == 0xeb)
        {
            return false; // the kernel would read a 32-bit distance behind the opcode of a short jump: no kernel has such a replacement
        }

        if (code[0] == 0xe9)
        {
            // jmp rel32, made short where it goes forward and fits; the test for going back can never hold, so those stay long
            if (!TryAdd(code[1..], move))
            {
                return false;
            }

            long distance = BinaryPrimitives.ReadInt32LittleEndian(code[1..]) + 3L; // the short form ends three bytes earlier
            if (distance is >= 0 and <= 127)
            {
                code[0] = 0xeb;
                code[1] = (byte)distance;
                NopStyle.P6.Fill(code[2..5]); // 0f 1f 00
            }
        }

        return true;
    }

    private bool RelocateAll(Span<byte> code, int length, VirtualAddress from, VirtualAddress site)
    {
        var decoder = Decoder.Create(_bitness, code.ToArray(), from.Value);
        ulong end = from.Value + (ulong)length;
        long move = from - site;
        bool reaches = true;
        while (decoder.IP < from.Value + (ulong)code.Length)
        {
            decoder.Decode(out Instruction instruction);
            if (instruction.IsInvalid)
            {
                break;
            }

            int at = (int)(instruction.IP - from.Value);
            ConstantOffsets offsets = decoder.GetConstantOffsets(instruction);
            bool branch = instruction.Op0Kind is OpKind.NearBranch32 or OpKind.NearBranch64;
            if (branch && Leaves(instruction.NearBranchTarget))
            {
                reaches &= offsets.ImmediateSize == 4 && TryAdd(code[(at + offsets.ImmediateOffset)..], move);
                ShortenJump(code, at, instruction.Length);
            }

            if (instruction.IsIPRelativeMemoryOperand && Leaves(instruction.IPRelativeMemoryAddress))
            {
                reaches &= TryAdd(code[(at + offsets.DisplacementOffset)..], move);
            }
        }

        return reaches;

        bool Leaves(ulong target) => target < from.Value || target > end;
    }

    private static void ShortenJump(Span<byte> code, int at, int length)
    {
        long distance = length == 5 ? BinaryPrimitives.ReadInt32LittleEndian(code[(at + 1)..]) + 3L : 0;
        if (code[at] == 0xe9 && length == 5 && distance is >= sbyte.MinValue and <= sbyte.MaxValue)
        {
            code[at] = 0xeb; // jmp rel8; int3 in what is left, where nothing ever runs
            code[at + 1] = (byte)distance;
            code.Slice(at + 2, 3).Fill(0xcc);
        }
    }

    /// <summary>Adds to a 32-bit field. In 32-bit code distances wrap, so everything is in reach.</summary>
    private bool TryAdd(Span<byte> field, long move)
    {
        long value = BinaryPrimitives.ReadInt32LittleEndian(field) + move;
        BinaryPrimitives.WriteInt32LittleEndian(field, unchecked((int)value));
        return value == (int)value || _bitness == 32;
    }
}
