using System.Diagnostics.CodeAnalysis;
using Iced.Intel;

namespace PvPatch.Machine;

/// <summary>
/// The instructions of a body as its writer gave them to Iced's assembler, labels and addresses told apart. In the assembler's list a
/// branch to a label holds the label's number (1, 2, …), a branch to an address holds the address, and an instruction without a label has
/// the number 0: an address of 0 or of a few units would be taken for a label. So instructions get numbers that no address has before Iced
/// encodes the list.
/// </summary>
internal sealed class WrittenBody
{
    /// <summary>Step between the places tried for a body. Half of it lies between the place and each address it refers to.</summary>
    private const ulong Away = 0x10000;

    private readonly Instruction[] _instructions;
    private readonly int?[] _labelled; // for each instruction the one that it leads to by a label
    private readonly int _bitness;

    private WrittenBody(Instruction[] instructions, int?[] labelled, int bitness)
    {
        _instructions = instructions;
        _labelled = labelled;
        _bitness = bitness;
    }

    /// <summary>Runs a writer.</summary>
    /// <param name="write">Writes the instructions, the same each time; it is run twice where they refer to a label or an address.</param>
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
        if (!TryRun(write, new Assembler(bitness) { PreferShortBranch = preferShort }, out Instruction[]? first, out reason))
        {
            return false;
        }

        // Any number could be a label's or an address. Written once more with all labels moved up by one, what moved along is a label.
        Instruction[] second = first;
        if (first.Any(static i => BodyBuilder.RelativeTarget(i) is not null))
        {
            var assembler = new Assembler(bitness);
            assembler.CreateLabel();
            if (!TryRun(write, assembler, out second!, out reason))
            {
                return false;
            }
        }

        if (second.Length != first.Length)
        {
            reason = "it is not written the same each time";
            return false;
        }

        int?[] labelled = new int?[first.Length];
        for (int i = 0; i < first.Length; i++)
        {
            ulong? target = BodyBuilder.RelativeTarget(first[i]);
            bool isLabel = BodyBuilder.RelativeTarget(second[i]) != target;
            labelled[i] = isLabel ? Array.FindIndex(first, other => other.IP == target) : null;
            if (labelled[i] < 0)
            {
                reason = $"the label of the {first[i].Mnemonic.ToString().ToLowerInvariant()} (instruction {i}) is nowhere placed";
                return false;
            }
        }

        body = new WrittenBody(first, labelled, bitness);
        return true;
    }

    /// <summary>Encodes the instructions at an address from which they reach what they refer to, as far as that can be.</summary>
    /// <param name="code">The bytes.</param>
    /// <param name="origin">The address they are made for.</param>
    /// <param name="reason">Why there are none: an operand does not encode, or a branch does not reach.</param>
    /// <returns>Whether they were encoded.</returns>
    public bool TryEncode([NotNullWhen(true)] out byte[]? code, out VirtualAddress origin, [NotNullWhen(false)] out string? reason)
    {
        ulong place = FreePlace();
        origin = new VirtualAddress(place);
        Instruction[] numbered = [.. _instructions];
        for (int i = 0; i < numbered.Length; i++)
        {
            numbered[i].IP = place + (ulong)i;
            if (_labelled[i] is int other)
            {
                SetRelativeTarget(ref numbered[i], place + (ulong)other);
            }
        }

        code = null;
        var writer = new ByteWriter(SiteBytes.MaxLength);
        if (!BlockEncoder.TryEncode(
            _bitness, new InstructionBlock(writer, numbered, place), out reason, out _, BlockEncoderOptions.DontFixBranches))
        {
            return false;
        }

        code = writer.ToArray();
        return true;
    }

    /// <summary>
    /// A place near the first address the body refers to, and so far from all of them that none lies in the body, is the number of an
    /// instruction or is reached by a short branch.
    /// </summary>
    private ulong FreePlace()
    {
        ulong[] addresses = [
            .. _instructions.Where((_, i) => _labelled[i] is null).Select(static i => BodyBuilder.RelativeTarget(i)).OfType<ulong>()];
        ulong place = addresses.FirstOrDefault();
        bool up = unchecked((int)place) >= 0; // bit 31: the next multiple of 4 GiB, and so an end of either space, is far ahead, or behind
        do
        {
            place = up ? place + Away : place - Away; // ends: each address is in the way of one place
        }
        while (addresses.Any(address => unchecked((uint)(place - address + (Away / 2))) < Away)); // of distances 32 bits are enough

        return place;
    }

    private static bool TryRun(
        Action<Assembler> write, Assembler assembler, [NotNullWhen(true)] out Instruction[]? instructions,
        [NotNullWhen(false)] out string? reason)
    {
        write(assembler);
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
