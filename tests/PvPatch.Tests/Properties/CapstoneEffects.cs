using Gee.External.Capstone;
using Gee.External.Capstone.X86;
using PvPatch.Machine;

namespace PvPatch.Tests.Properties;

/// <summary>
/// What code does to registers and stack, according to Capstone: a second opinion on what the engine works out with Iced.
/// </summary>
internal sealed class CapstoneEffects
{
    private static readonly string[][] s_names =
    [
        ["rax", "eax", "ax", "al", "ah"], ["rcx", "ecx", "cx", "cl", "ch"], ["rdx", "edx", "dx", "dl", "dh"],
        ["rbx", "ebx", "bx", "bl", "bh"],
        ["rsp", "esp", "sp", "spl"], ["rbp", "ebp", "bp", "bpl"], ["rsi", "esi", "si", "sil"], ["rdi", "edi", "di", "dil"],
        ["r8", "r8d", "r8w", "r8b"], ["r9", "r9d", "r9w", "r9b"], ["r10", "r10d", "r10w", "r10b"], ["r11", "r11d", "r11w", "r11b"],
        ["r12", "r12d", "r12w", "r12b"], ["r13", "r13d", "r13w", "r13b"], ["r14", "r14d", "r14w", "r14b"], ["r15", "r15d", "r15w", "r15b"],
    ];

    private CapstoneEffects(RegisterSet destroys, bool usesStack, RegisterSet pushed)
    {
        Destroys = destroys;
        UsesStack = usesStack;
        Pushed = pushed;
    }

    /// <summary>
    /// Everything written, and what calls destroy where there is one. The stack pointer only where something other than push, pop and call
    /// writes it.
    /// </summary>
    public RegisterSet Destroys { get; }

    /// <summary>Whether an instruction writes the stack pointer or addresses through it.</summary>
    public bool UsesStack { get; }

    /// <summary>What is pushed (flags by pushf), in any order.</summary>
    public RegisterSet Pushed { get; }

    public static CapstoneEffects Of(ReadOnlySpan<byte> code, ulong address, int bitness, RegisterSet destroyedByCalls)
    {
        RegisterSet destroys = default;
        RegisterSet pushed = default;
        bool stack = false;
        using CapstoneX86Disassembler reader = CapstoneDisassembler.CreateX86Disassembler(
            bitness == 64 ? X86DisassembleMode.Bit64 : X86DisassembleMode.Bit32);
        reader.EnableInstructionDetails = true;
        foreach (X86Instruction instruction in code.IsEmpty ? [] : reader.Disassemble(code.ToArray(), unchecked((long)address)))
        {
            bool moves = instruction.Mnemonic.StartsWith("push", StringComparison.Ordinal)
                || instruction.Mnemonic.StartsWith("pop", StringComparison.Ordinal)
                || instruction.Mnemonic is "call" or "ret";
            stack |= moves || instruction.Operand.Contains("[rsp", StringComparison.Ordinal)
                || instruction.Operand.Contains("[esp", StringComparison.Ordinal);
            destroys |= instruction.Mnemonic == "call" ? destroyedByCalls : default;
            foreach (X86Register register in instruction.Details.AllWrittenRegisters)
            {
                RegisterSet one = Find(register.Name);
                destroys |= (moves && one == RegisterSet.Rsp) || (one == RegisterSet.Flags && instruction.Mnemonic is "cli" or "sti")
                    ? default : one;
            }

            pushed |= instruction.Mnemonic.StartsWith("pushf", StringComparison.Ordinal) ? RegisterSet.Flags
                : instruction.Mnemonic == "push" ? Find(instruction.Operand)
                : default;
        }

        return new CapstoneEffects(destroys, stack, pushed);
    }

    private static RegisterSet Find(string name)
    {
        int number = Array.FindIndex(s_names, names => names.Contains(name));
        return number >= 0 ? RegisterSet.General(number)
            : name is "rflags" or "eflags" or "flags" ? RegisterSet.Flags
            : name.StartsWith("xmm", StringComparison.Ordinal) || name.StartsWith("ymm", StringComparison.Ordinal)
                || name.StartsWith("mm", StringComparison.Ordinal) || name.StartsWith("st", StringComparison.Ordinal) || name == "fpsw"
                ? RegisterSet.Vector
            : RegisterSet.None;
    }
}
