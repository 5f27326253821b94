using System.Diagnostics.CodeAnalysis;
using Iced.Intel;

namespace PvPatch.Machine;

/// <summary>
/// The instructions of a body as its writer gave them to Iced's assembler, labels and addresses told apart. In the assembler's list a
/// branch to a label holds the label's number (1, 2, …), a branch to an address holds the address, and an instruction without a label has
/// the number 0: an address of 0 or of a few units would be taken for a label. So addresses are moved out of the way of labels before Iced
/// encodes the list.
/// </summary>
internal sealed class WrittenBody
{
    /// <summary>
    /// Distance kept between the place a body is assembled at and the addresses it refers to, so that no short branch reaches them.
    /// </summary>
    private const long Away = 0x10000;

    /// <summary>Step between the distances tried for moving addresses away from labels.</summary>
    private const ulong Step = 0x0100_0000;

    private readonly Instruction[] _instructions;
    private readonly bool[] _refersToAddress;
    private readonly ulong _labels;
    private readonly int _bitness;

    private WrittenBody(Instruction[] instructions, bool[] refersToAddress, ulong labels, int bitness)
    {
        _instructions = instructions;
        _refersToAddress = refersToAddress;
        _labels = labels;
        _bitness = bitness;
    }

    /// <summary>Runs a writer.</summary>
    /// <param name="write">
    /// Writes the instructions, the same each time; it is run twice where a target could be a label or an address.
    /// </param>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="preferShort">Whether branches to labels are short.</param>
    /// <param name="body">The instructions.</param>
    /// <param name="reason">Why there are none.</param>
    /// <returns>Whether the writer wrote what can be encoded.</returns>
    public static bool TryRead(
        Action<Assembler> write, int bitness, bool preferShort, [NotNullWhen(true)] out WrittenBody? body,
        [NotNullWhen(false)] out string? reason)
    {
        body = null;
        if (!TryRun(write, bitness, preferShort, 0, out Instruction[]? first, out ulong labels, out reason))
        {
            return false;
        }

        // Every number below the next label's could be a label. Written once more with all labels moved up, what moved along is one.
        bool[] refersToAddress = new bool[first.Length];
        Instruction[] second = first;
        if (first.Any(i => RelativeTarget(i) is ulong target && target != 0 && target < labels)
            && !TryRun(write, bitness, preferShort, labels, out second!, out _, out reason))
        {
            return false;
        }

        if (second.Length != first.Length)
        {
            reason = "it is not written the same each time";
            return false;
        }

        var placed = new HashSet<ulong>(first.Select(static i => i.IP));
        for (int i = 0; i < first.Length; i++)
        {
            if (RelativeTarget(first[i]) is ulong target)
            {
                refersToAddress[i] = target == 0 || target >= labels || RelativeTarget(second[i]) == target;
                if (!refersToAddress[i] && !placed.Contains(target))
                {
                    reason = $"the label of the {first[i].Mnemonic.ToString().ToLowerInvariant()} (instruction {i}) is nowhere placed";
                    return false;
                }
            }
        }

        body = new WrittenBody(first, refersToAddress, labels, bitness);
        return true;
    }

    /// <summary>Encodes the instructions at an address from which they reach what they refer to, as far as that can be.</summary>
    /// <param name="code">The bytes.</param>
    /// <param name="origin">The address they are made for.</param>
    /// <param name="reason">Why there are none: an operand does not encode, or a branch does not reach.</param>
    /// <returns>Whether they were encoded.</returns>
    public bool TryEncode([NotNullWhen(true)] out byte[]? code, out VirtualAddress origin, [NotNullWhen(false)] out string? reason)
    {
        ulong mask = _bitness == 32 ? uint.MaxValue : ulong.MaxValue;
        ulong shift = FreeShift(mask);
        Instruction[] moved = [.. _instructions];
        ulong? outside = null;
        for (int i = 0; i < moved.Length; i++)
        {
            if (_refersToAddress[i])
            {
                ulong target = unchecked(RelativeTarget(moved[i])!.Value + shift) & mask;
                SetRelativeTarget(ref moved[i], target);
                outside ??= target;
            }
        }

        ulong place = outside is not ulong first ? Away : first < mask - (2 * Away) ? first + Away : first - Away;
        origin = new VirtualAddress(unchecked(place - shift) & mask);
        // Where the body would run over the end of the address space it is put at the other side of its target.
        if (outside is not null && origin.Value > mask - Away)
        {
            place -= 2 * Away;
            origin = new VirtualAddress(unchecked(place - shift) & mask);
        }

        var writer = new ByteWriter(SiteBytes.MaxLength);
        bool encoded = BlockEncoder.TryEncode(
            _bitness, new InstructionBlock(writer, moved, place), out string? error, out _, BlockEncoderOptions.DontFixBranches);
        code = encoded ? writer.ToArray() : null;
        reason = encoded ? null : error!;
        return encoded;
    }

    /// <summary>By how much addresses are moved so that none has the number of a label.</summary>
    private ulong FreeShift(ulong mask)
    {
        ulong shift = 0;
        while (_instructions.Where((_, i) => _refersToAddress[i]).Any(i => (unchecked(RelativeTarget(i)!.Value + shift) & mask) < _labels))
        {
            shift += Step; // ends: each reference is in the way of a few steps at most
        }

        return shift;
    }

    private static bool TryRun(
        Action<Assembler> write,
        int bitness,
        bool preferShort,
        ulong labelsBefore,
        [NotNullWhen(true)] out Instruction[]? instructions,
        out ulong labels,
        [NotNullWhen(false)] out string? reason)
    {
        var assembler = new Assembler(bitness) { PreferShortBranch = preferShort };
        for (ulong i = 0; i < labelsBefore; i++)
        {
            assembler.CreateLabel();
        }

        write(assembler);
        labels = assembler.CreateLabel().Id;
        instructions = null;
        reason = null;
        // A label or a prefix that waits for its instruction would be lost without a word: it shows in one more instruction.
        Instruction[] written = [.. assembler.Instructions];
        Instruction plain = Instruction.Create(Code.Nopd);
        assembler.AddInstruction(plain);
        Instruction last = assembler.Instructions[^1];
        if (last.IP != 0 || last != plain)
        {
            reason = "a label or prefix stands behind the last instruction";
            return false;
        }

        instructions = written;
        return true;
    }

    private static ulong? RelativeTarget(in Instruction instruction) =>
        BodyBuilder.IsNearBranch(instruction) ? instruction.NearBranchTarget
        : instruction.IsIPRelativeMemoryOperand ? instruction.IPRelativeMemoryAddress
        : null;

    private static void SetRelativeTarget(ref Instruction instruction, ulong target)
    {
        switch (instruction.Op0Kind)
        {
            case OpKind.NearBranch16:
                instruction.NearBranch16 = (ushort)target;
                break;
            case OpKind.NearBranch32:
                instruction.NearBranch32 = (uint)target;
                break;
            case OpKind.NearBranch64:
                instruction.NearBranch64 = target;
                break;
            default:
                instruction.MemoryDisplacement64 = target;
                break;
        }
    }
}

/// <summary>What Iced writes, a byte at a time.</summary>
/// <param name="capacity">Bytes there is room for at first.</param>
internal sealed class ByteWriter(int capacity) : CodeWriter
{
    private byte[] _bytes = new byte[capacity];
    private int _count;

    public override void WriteByte(byte value)
    {
        if (_count == _bytes.Length)
        {
            Array.Resize(ref _bytes, Math.Max(16, 2 * _count));
        }

        _bytes[_count++] = value;
    }

    public void Clear() => _count = 0;

    public byte[] ToArray() => _bytes[.._count];
}
