using System.Globalization;
using Iced.Intel;

namespace PvPatch.Tool.Output;

/// <summary>One instruction as text.</summary>
/// <param name="Address">Its address.</param>
/// <param name="Length">Its length in bytes.</param>
/// <param name="Text">The text; <c>(bad)</c> for bytes that are no instruction.</param>
/// <param name="IsNop">Whether it does nothing.</param>
internal readonly record struct InstructionText(VirtualAddress Address, int Length, string Text, bool IsNop);

/// <summary>Bytes as instructions, in the notation of NASM, with names for the addresses that have some.</summary>
internal sealed class Disassembler
{
    private readonly int _bitness;
    private readonly NasmFormatter _formatter;

    public Disassembler(int bitness, Func<ulong, string?> nameOf)
    {
        _bitness = bitness;
        var options = new FormatterOptions
        {
            HexPrefix = "0x",
            HexSuffix = null,
            UppercaseHex = false,
            RipRelativeAddresses = false,
            ShowBranchSize = false,
        };
        _formatter = new NasmFormatter(options, new Names(nameOf));
    }

    /// <summary>Every instruction; bytes left over at the end are shown as bad ones.</summary>
    public IReadOnlyList<InstructionText> Decode(ReadOnlySpan<byte> bytes, VirtualAddress address)
    {
        var decoder = Decoder.Create(_bitness, bytes.ToArray(), address.Value);
        var output = new StringOutput();
        var result = new List<InstructionText>();
        int at = 0;
        while (at < bytes.Length)
        {
            decoder.Decode(out Instruction instruction);
            int length = Math.Max(1, instruction.Length);
            string text = "(bad)";
            if (!instruction.IsInvalid)
            {
                _formatter.Format(instruction, output);
                text = output.ToStringAndReset();
            }

            result.Add(new InstructionText(address + at, length, text, IsNop(instruction)));
            at += length;
        }

        return result;
    }

    /// <summary>The instructions as short pieces of text; a run of nops is one piece, <c>nop(9)</c> for nine bytes of them.</summary>
    public IReadOnlyList<string> Pieces(ReadOnlySpan<byte> bytes, VirtualAddress address)
    {
        var pieces = new List<string>();
        int nops = 0;
        foreach (InstructionText instruction in Decode(bytes, address))
        {
            if (instruction.IsNop)
            {
                nops += instruction.Length;
                continue;
            }

            AddNops(pieces, ref nops);
            pieces.Add(instruction.Text);
        }

        AddNops(pieces, ref nops);
        return pieces;
    }

    /// <summary>All on one line.</summary>
    public string Line(ReadOnlySpan<byte> bytes, VirtualAddress address) => string.Join("; ", Pieces(bytes, address));

    // 32-bit code of old is padded with moves and address computations that change nothing (mov esi,esi; lea esi,[esi+0]). In 64-bit
    // code the same instructions clear the upper half of the register.
    private bool IsNop(in Instruction instruction) => instruction.Mnemonic switch
    {
        Mnemonic.Nop => true,
        Mnemonic.Mov => _bitness == 32 && instruction.Op1Kind == OpKind.Register && instruction.Op0Register == instruction.Op1Register,
        Mnemonic.Lea => _bitness == 32 && instruction.MemoryBase == instruction.Op0Register && instruction.MemoryIndex == Register.None
            && instruction.MemoryDisplacement64 == 0,
        _ => false,
    };

    private static void AddNops(List<string> pieces, ref int length)
    {
        if (length > 0)
        {
            pieces.Add(length == 1 ? "nop" : string.Create(CultureInfo.InvariantCulture, $"nop({length})"));
            length = 0;
        }
    }

    private sealed class Names(Func<ulong, string?> nameOf) : ISymbolResolver
    {
        public bool TryGetSymbol(
            in Instruction instruction, int operand, int instructionOperand, ulong address, int addressSize, out SymbolResult symbol)
        {
            string? name = IsAddress(instruction, instructionOperand) ? nameOf(address) : null;
            symbol = name is null ? default : new SymbolResult(address, name);
            return name is not null;
        }

        // Targets and whole addresses have names; an immediate, a displacement from a register or an offset in the per-CPU segment is
        // another kind of number, which would find a name by accident.
        private static bool IsAddress(in Instruction instruction, int operand) => operand >= 0 && instruction.GetOpKind(operand) switch
        {
            OpKind.NearBranch16 or OpKind.NearBranch32 or OpKind.NearBranch64 => true,
            OpKind.Memory => instruction.MemoryBase is Register.None or Register.RIP
                && instruction.MemoryIndex == Register.None
                && instruction.SegmentPrefix is not (Register.FS or Register.GS),
            _ => false,
        };
    }
}
