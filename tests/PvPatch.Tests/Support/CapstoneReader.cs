using Gee.External.Capstone;
using Gee.External.Capstone.X86;

namespace PvPatch.Tests.Support;

/// <summary>Capstone as a second reader of what was written. The package brings its own native library.</summary>
internal static class CapstoneReader
{
    /// <summary>Reads instructions until the end or until one cannot be decoded; Intel syntax.</summary>
    public static IReadOnlyList<(ulong Address, int Length, string Text)> Disassemble(ReadOnlySpan<byte> code, ulong address, int bitness)
    {
        if (code.IsEmpty)
        {
            return [];
        }

        X86DisassembleMode mode = bitness switch
        {
            64 => X86DisassembleMode.Bit64,
            32 => X86DisassembleMode.Bit32,
            _ => throw new ArgumentOutOfRangeException(nameof(bitness), bitness, "32 or 64"),
        };
        using CapstoneX86Disassembler reader = CapstoneDisassembler.CreateX86Disassembler(mode);
        var instructions = new List<(ulong, int, string)>();
        foreach (X86Instruction instruction in reader.Disassemble(code.ToArray(), unchecked((long)address)))
        {
            string text = $"{instruction.Mnemonic} {instruction.Operand}".TrimEnd();
            instructions.Add((unchecked((ulong)instruction.Address), instruction.Bytes.Length, text));
        }

        return instructions;
    }

    /// <summary>Fails unless the code is whole instructions from its first byte to its last: none runs over, none is undecodable.</summary>
    public static void AssertWholeInstructions(ReadOnlySpan<byte> code, ulong address, int bitness, string what)
    {
        int read = 0;
        var listing = new List<string>();
        foreach ((ulong at, int length, string text) in Disassemble(code, address, bitness))
        {
            Assert.True(at == unchecked(address + (ulong)read), $"{what}: instruction at 0x{at:x}, expected 0x{address + (ulong)read:x}");
            read += length;
            listing.Add(text);
        }

        Assert.True(
            read == code.Length,
            $"{what}: {read} of {code.Length} bytes decode: {Convert.ToHexString(code)}: {string.Join("; ", listing)}");
    }
}
