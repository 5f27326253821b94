using RiscV.Host;
using RiscV.Isa;

namespace RiscV.Interpreter;

/// <summary>A decoded instruction with the C# function that executes it: what a dispatch table holds.</summary>
internal unsafe struct Decoded
{
    /// <summary>
    /// Executes the instruction; the address of the next one. A handler that stops sets <see cref="CpuState.Stop"/> and gives its own
    /// address.
    /// </summary>
    public delegate*<CpuState*, Decoded*, ulong> Handler;
    public ulong Pc;
    public int Imm;
    public byte Rd;
    public byte Rs1;
    public byte Rs2;
    public Op Op;

    public static Decoded From(uint word, ulong pc)
    {
        Instruction instruction = Decoder.Decode(word);
        return new Decoded
        {
            Handler = Handlers.Of(instruction.Op),
            Pc = pc,
            Imm = instruction.Imm,
            Rd = instruction.Rd == 0 ? (byte)CpuState.Discard : instruction.Rd,
            Rs1 = instruction.Rs1,
            Rs2 = instruction.Rs2,
            Op = instruction.Op,
        };
    }
}
