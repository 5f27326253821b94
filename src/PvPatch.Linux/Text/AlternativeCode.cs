using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using Iced.Intel;
using PvPatch.Linux.Eras;
using PvPatch.Machine;

namespace PvPatch.Linux.Text;

/// <summary>
/// The bytes that an era's kernel writes for an alternative: moved to its site, padded, nops merged. Pure, and without allocations where
/// the caller gives the room; it keeps a decoder, so one thread at a time uses it.
/// </summary>
internal sealed class AlternativeCode
{
    private const int ShortJump = 2; // eb rel8
    private const int Jump = 5; // e9 rel32

    private readonly AlternativeRules _rules;
    private readonly int _bitness;
    private readonly NopStyle _nops;
    private readonly CodeBuffer _buffer = new();
    private readonly Decoder _decoder;

    /// <param name="rules">The era's rules.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="nops">The nops that the kernel chose by processor; <see langword="null"/> for those of the rules.</param>
    public AlternativeCode(AlternativeRules rules, int bitness, NopStyle? nops = null)
    {
        _rules = rules;
        _bitness = bitness;
        _nops = nops ?? rules.Nops(bitness);
        _decoder = Decoder.Create(bitness, _buffer);
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
        bool reaches = TryApply(replacement, from, site, bytes);
        code = reaches ? bytes : null;
        return reaches;
    }

    /// <summary>The bytes that stand at a site once a replacement was applied.</summary>
    /// <param name="replacement">The replacement's bytes.</param>
    /// <param name="from">Where they lie.</param>
    /// <param name="site">Where they go.</param>
    /// <param name="code">The bytes; as many as the site has, no fewer than the replacement. Of no use where the answer is no.</param>
    /// <returns>Whether everything the replacement refers to is in reach of the site.</returns>
    public bool TryApply(ReadOnlySpan<byte> replacement, VirtualAddress from, VirtualAddress site, Span<byte> code)
    {
        replacement.CopyTo(code);
        code[replacement.Length..].Fill(0x90);
        bool reaches = TryMove(code, replacement.Length, from - site);
        MergeNops(code);
        return reaches;
    }

    /// <summary>
    /// Moves code as the kernel moves a replacement: what leaves it goes where it went before. Nothing is padded, no nop merged.
    /// </summary>
    /// <param name="code">The code, changed in place.</param>
    /// <param name="length">Its length without padding.</param>
    /// <param name="move">Where it lay less where it goes, in bytes.</param>
    /// <returns>Whether everything is in reach.</returns>
    public bool TryMove(Span<byte> code, int length, long move) =>
        _rules.Relocation == ReplacementRelocation.EveryInstruction ? MoveAll(code, length, move)
        : length != Jump || MoveBranch(code, move);

    /// <summary>Steps applied to the bytes of every alternative, replaced or not.</summary>
    public void MergeNops(Span<byte> code)
    {
        // Nearly no site needs it, and reading its instructions is most of the work.
        if (_rules.Merging == NopMerging.RunsOfOneByteNops
            ? code.IndexOf((ReadOnlySpan<byte>)[0x90, 0x90]) >= 0 : code.ContainsAny<byte>(0x90, 0x1f))
        {
            Merge(code);
        }
    }

    private void Merge(Span<byte> code)
    {
        // Only whole instructions count: 0x90 within an operand is no nop. What does not decode ends it, in the kernel too.
        bool any = _rules.Merging == NopMerging.RunsOfAnyNops;
        _buffer.Set(code);
        for (int at = 0, next; at < code.Length; at = next)
        {
            if (!TryDecode(at, out int length))
            {
                return;
            }

            next = at + length;
            if (!IsNop(code.Slice(at, length), any))
            {
                continue;
            }

            if (any && next == code.Length)
            {
                return; // one nop at the end is left in whatever form it has; one before other code is not
            }

            while (next < code.Length && TryDecode(next, out length) && IsNop(code.Slice(next, length), any))
            {
                next += length;
            }

            if (any || next - at > 1)
            {
                _nops.Fill(code[at..next]);
            }
        }
    }

    /// <summary>
    /// Either the one byte 90; or 90 with prefixes, but not pause (f3 90), and 0f 1f with whatever prefixes and operand.
    /// </summary>
    private bool IsNop(ReadOnlySpan<byte> instruction, bool any)
    {
        if (!any)
        {
            return instruction is [0x90];
        }

        int opcode = OpcodeOffset(instruction);
        return instruction[opcode] == 0x90 ? instruction[0] != 0xf3
            : instruction[opcode] == 0x0f && opcode + 1 < instruction.Length && instruction[opcode + 1] == 0x1f;
    }

    private int OpcodeOffset(ReadOnlySpan<byte> instruction)
    {
        int at = instruction.IndexOfAnyExcept((ReadOnlySpan<byte>)[0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65]);
        at = at < 0 ? 0 : at;
        return _bitness == 64 && (instruction[at] & 0xf0) == 0x40 && at + 1 < instruction.Length ? at + 1 : at;
    }

    private bool MoveBranch(Span<byte> code, long move)
    {
        if (code[0] == 0xe8)
        {
            return TryAdd(code.Slice(1, 4), move); // call rel32: same target, another place
        }

        if (code[0] == 0xeb)
        {
            return false; // the kernel would read a 32-bit distance behind the opcode of a short jump: no kernel has such a replacement
        }

        if (code[0] == 0xe9)
        {
            // jmp rel32, made short where it goes forward and fits; the test for going back can never hold, so those stay long
            if (!TryAdd(code.Slice(1, 4), move))
            {
                return false;
            }

            long distance = BinaryPrimitives.ReadInt32LittleEndian(code[1..]) + (long)(Jump - ShortJump);
            if (distance is >= -ShortJump and <= sbyte.MaxValue) // forward: from the jump's own address on
            {
                code[0] = 0xeb;
                code[1] = (byte)distance;
                _nops.Fill(code[ShortJump..Jump]);
            }
        }

        return true;
    }

    private bool MoveAll(Span<byte> code, int length, long move)
    {
        bool reaches = true;
        _buffer.Set(code);
        for (int at = 0, next; at < code.Length; at = next)
        {
            if (!TryDecode(at, out Instruction instruction))
            {
                break;
            }

            next = at + instruction.Length;
            ConstantOffsets offsets = _decoder.GetConstantOffsets(instruction);
            bool branch = instruction.IsJmpShortOrNear || instruction.IsJccShortOrNear || instruction.IsCallNear;
            if (branch && offsets.HasImmediate)
            {
                Span<byte> field = code.Slice(at + offsets.ImmediateOffset, offsets.ImmediateSize);
                long distance = Read(field);
                if (Leaves(next + distance))
                {
                    reaches &= TryAdd(field, move);
                }

                // The kernel adds the move here whether or not the target leaves the replacement:
                //   before  e9 d0 d1 d2 d3    after  eb d0 cc cc cc    int3 where nothing ever runs
                long shorter = distance + move + (Jump - ShortJump);
                if (instruction.IsJmpNear && shorter is >= sbyte.MinValue and <= sbyte.MaxValue)
                {
                    code[at] = 0xeb;
                    code[at + 1] = (byte)shorter;
                    code[(at + ShortJump)..next].Fill(0xcc);
                }
            }

            if (instruction.IsIPRelativeMemoryOperand)
            {
                Span<byte> field = code.Slice(at + offsets.DisplacementOffset, offsets.DisplacementSize);
                if (Leaves(next + Read(field)))
                {
                    reaches &= TryAdd(field, move);
                }
            }
        }

        return reaches;

        bool Leaves(long offset) => offset < 0 || offset > length; // the end is still inside
    }

    private bool TryDecode(int at, out int length)
    {
        bool decoded = TryDecode(at, out Instruction instruction);
        length = instruction.Length;
        return decoded;
    }

    private bool TryDecode(int at, out Instruction instruction)
    {
        _buffer.Position = at;
        _decoder.IP = (ulong)at;
        _decoder.Decode(out instruction);
        return !instruction.IsInvalid;
    }

    private static long Read(ReadOnlySpan<byte> field) => field.Length switch
    {
        1 => (sbyte)field[0],
        2 => BinaryPrimitives.ReadInt16LittleEndian(field),
        _ => BinaryPrimitives.ReadInt32LittleEndian(field),
    };

    /// <summary>Adds to a signed field. In 32-bit code distances of 32 bits wrap, so everything is in reach.</summary>
    private bool TryAdd(Span<byte> field, long move)
    {
        long value = Read(field) + move;
        switch (field.Length)
        {
            case 1:
                field[0] = unchecked((byte)value);
                return value == (sbyte)value;
            case 2:
                BinaryPrimitives.WriteInt16LittleEndian(field, unchecked((short)value));
                return value == (short)value;
            default:
                BinaryPrimitives.WriteInt32LittleEndian(field, unchecked((int)value));
                return value == (int)value || _bitness == 32;
        }
    }

    /// <summary>The code to decode: a copy, which the decoder reads from any place again.</summary>
    private sealed class CodeBuffer : CodeReader
    {
        private byte[] _bytes = new byte[byte.MaxValue]; // the longest site that a record can name
        private int _length;

        public int Position { get; set; }

        public void Set(ReadOnlySpan<byte> code)
        {
            if (code.Length > _bytes.Length)
            {
                _bytes = new byte[code.Length];
            }

            code.CopyTo(_bytes);
            _length = code.Length;
        }

        public override int ReadByte() => Position < _length ? _bytes[Position++] : -1;
    }
}
