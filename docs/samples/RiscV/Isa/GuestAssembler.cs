namespace RiscV.Isa;

/// <summary>
/// A few lines of assembler for guest programs made at run time: <c>a.R(Op.Add, 10, 10, 11)</c>. Registers are numbers; branches go to
/// labels, forward or backward.
/// </summary>
internal sealed class GuestAssembler
{
    private readonly List<uint> _words = [];
    private readonly List<int> _labels = [];
    private readonly List<(int Word, Instruction Instruction, int Label)> _fixups = [];

    /// <summary>Bytes so far.</summary>
    public int Length => _words.Count * 4;

    public void Emit(Instruction instruction) => _words.Add(Encoder.Encode(instruction));

    public void R(Op op, int rd, int rs1, int rs2) => Emit(new Instruction(op, (byte)rd, (byte)rs1, (byte)rs2, 0));

    public void I(Op op, int rd, int rs1, int imm) => Emit(new Instruction(op, (byte)rd, (byte)rs1, 0, imm));

    /// <summary>A store: <paramref name="rs2"/> goes to memory at <paramref name="rs1"/> + <paramref name="imm"/>.</summary>
    public void S(Op op, int rs2, int rs1, int imm) => Emit(new Instruction(op, 0, (byte)rs1, (byte)rs2, imm));

    public void U(Op op, int rd, int imm) => Emit(new Instruction(op, (byte)rd, 0, 0, imm));

    public void Ecall() => Emit(new Instruction(Op.Ecall, 0, 0, 0, 0));

    /// <summary>Any 32-bit constant. The low part is signed, so the high part makes up for it.</summary>
    public void Li(int rd, int value)
    {
        int low = value << 20 >> 20;
        U(Op.Lui, rd, value - low);
        I(Op.Addiw, rd, rd, low);
    }

    public int NewLabel()
    {
        _labels.Add(-1);
        return _labels.Count - 1;
    }

    public void Mark(int label) => _labels[label] = _words.Count;

    /// <summary>A label at this place, for jumping back to.</summary>
    public int Here()
    {
        int label = NewLabel();
        Mark(label);
        return label;
    }

    public void Branch(Op op, int rs1, int rs2, int label) => Later(new Instruction(op, 0, (byte)rs1, (byte)rs2, 0), label);

    public void Jal(int rd, int label) => Later(new Instruction(Op.Jal, (byte)rd, 0, 0, 0), label);

    /// <summary>The program.</summary>
    public byte[] ToArray()
    {
        foreach ((int word, Instruction instruction, int label) in _fixups)
        {
            _words[word] = Encoder.Encode(instruction with { Imm = (_labels[label] - word) * 4 });
        }

        return [.. _words.SelectMany(BitConverter.GetBytes)];
    }

    private void Later(Instruction instruction, int label)
    {
        _fixups.Add((_words.Count, instruction, label));
        _words.Add(0);
    }
}
