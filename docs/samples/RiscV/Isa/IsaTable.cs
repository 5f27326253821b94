using System.Globalization;

namespace RiscV.Isa;

/// <summary>
/// The encodings as text, laid out as in the instruction listings of the RISC-V unprivileged specification: bits 31 to 0, a dot for a bit
/// that belongs to an operand. Decoder and encoder both read this table, so there is one place in which an encoding can be wrong.
/// </summary>
internal static class IsaTable
{
    private const string Text = """
        lui     U      ....... ..... ..... ... ..... 0110111
        auipc   U      ....... ..... ..... ... ..... 0010111
        jal     J      ....... ..... ..... ... ..... 1101111
        jalr    I      ....... ..... ..... 000 ..... 1100111
        beq     B      ....... ..... ..... 000 ..... 1100011
        bne     B      ....... ..... ..... 001 ..... 1100011
        blt     B      ....... ..... ..... 100 ..... 1100011
        bge     B      ....... ..... ..... 101 ..... 1100011
        bltu    B      ....... ..... ..... 110 ..... 1100011
        bgeu    B      ....... ..... ..... 111 ..... 1100011
        lb      I      ....... ..... ..... 000 ..... 0000011
        lh      I      ....... ..... ..... 001 ..... 0000011
        lw      I      ....... ..... ..... 010 ..... 0000011
        ld      I      ....... ..... ..... 011 ..... 0000011
        lbu     I      ....... ..... ..... 100 ..... 0000011
        lhu     I      ....... ..... ..... 101 ..... 0000011
        lwu     I      ....... ..... ..... 110 ..... 0000011
        sb      S      ....... ..... ..... 000 ..... 0100011
        sh      S      ....... ..... ..... 001 ..... 0100011
        sw      S      ....... ..... ..... 010 ..... 0100011
        sd      S      ....... ..... ..... 011 ..... 0100011
        addi    I      ....... ..... ..... 000 ..... 0010011
        slti    I      ....... ..... ..... 010 ..... 0010011
        sltiu   I      ....... ..... ..... 011 ..... 0010011
        xori    I      ....... ..... ..... 100 ..... 0010011
        ori     I      ....... ..... ..... 110 ..... 0010011
        andi    I      ....... ..... ..... 111 ..... 0010011
        slli    Shift  000000. ..... ..... 001 ..... 0010011
        srli    Shift  000000. ..... ..... 101 ..... 0010011
        srai    Shift  010000. ..... ..... 101 ..... 0010011
        add     R      0000000 ..... ..... 000 ..... 0110011
        sub     R      0100000 ..... ..... 000 ..... 0110011
        sll     R      0000000 ..... ..... 001 ..... 0110011
        slt     R      0000000 ..... ..... 010 ..... 0110011
        sltu    R      0000000 ..... ..... 011 ..... 0110011
        xor     R      0000000 ..... ..... 100 ..... 0110011
        srl     R      0000000 ..... ..... 101 ..... 0110011
        sra     R      0100000 ..... ..... 101 ..... 0110011
        or      R      0000000 ..... ..... 110 ..... 0110011
        and     R      0000000 ..... ..... 111 ..... 0110011
        addiw   I      ....... ..... ..... 000 ..... 0011011
        slliw   Shift  0000000 ..... ..... 001 ..... 0011011
        srliw   Shift  0000000 ..... ..... 101 ..... 0011011
        sraiw   Shift  0100000 ..... ..... 101 ..... 0011011
        addw    R      0000000 ..... ..... 000 ..... 0111011
        subw    R      0100000 ..... ..... 000 ..... 0111011
        sllw    R      0000000 ..... ..... 001 ..... 0111011
        srlw    R      0000000 ..... ..... 101 ..... 0111011
        sraw    R      0100000 ..... ..... 101 ..... 0111011
        mul     R      0000001 ..... ..... 000 ..... 0110011
        mulh    R      0000001 ..... ..... 001 ..... 0110011
        mulhsu  R      0000001 ..... ..... 010 ..... 0110011
        mulhu   R      0000001 ..... ..... 011 ..... 0110011
        div     R      0000001 ..... ..... 100 ..... 0110011
        divu    R      0000001 ..... ..... 101 ..... 0110011
        rem     R      0000001 ..... ..... 110 ..... 0110011
        remu    R      0000001 ..... ..... 111 ..... 0110011
        mulw    R      0000001 ..... ..... 000 ..... 0111011
        divw    R      0000001 ..... ..... 100 ..... 0111011
        divuw   R      0000001 ..... ..... 101 ..... 0111011
        remw    R      0000001 ..... ..... 110 ..... 0111011
        remuw   R      0000001 ..... ..... 111 ..... 0111011
        fence   None   ....... ..... ..... 000 ..... 0001111
        fence.i None   ....... ..... ..... 001 ..... 0001111
        ecall   None   0000000 00000 00000 000 00000 1110011
        ebreak  None   0000000 00001 00000 000 00000 1110011
        """;

    /// <summary>The rows, in the order of <see cref="Op"/> (which has <see cref="Op.Illegal"/> before them).</summary>
    public static IReadOnlyList<IsaRow> Rows { get; } = [.. Text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(Parse)];

    /// <summary>The row of an instruction.</summary>
    public static IsaRow Of(Op op) => Rows[(int)op - 1];

    private static IsaRow Parse(string line, int index)
    {
        string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        string bits = string.Concat(words[2..]);
        uint mask = uint.Parse(bits.Replace('0', '1').Replace('.', '0'), NumberStyles.BinaryNumber, CultureInfo.InvariantCulture);
        uint match = uint.Parse(bits.Replace('.', '0'), NumberStyles.BinaryNumber, CultureInfo.InvariantCulture);
        var encoding = new IsaRow(words[0], Enum.Parse<Op>(words[0].Replace(".", "", StringComparison.Ordinal), ignoreCase: true),
            Enum.Parse<Format>(words[1]), mask, match);
        return bits.Length == 32 && (int)encoding.Op == index + 1 ? encoding : throw new FormatException($"row {index}: {line}");
    }
}

/// <summary>One row: an instruction word is this instruction where <c>(word &amp; Mask) == Match</c>.</summary>
internal readonly record struct IsaRow(string Name, Op Op, Format Format, uint Mask, uint Match);
