using Iced.Intel;

namespace PvGuest.Machine;

/// <summary>Kinds of instructions, those that a machine has an opinion of behind those that are only counted.</summary>
internal enum Special : byte
{
    None, Nop, ThroughTable, LastOrdinary = ThroughTable,

    // Of these a machine has an opinion, and the emulated processor can do them by itself.
    Cli, Sti, Flags, SwapGs, ReadControl, Clts, Wbinvd, LastOfProcessor = Wbinvd,

    // These are done for it.
    WriteCr3, FlushPage, LoadIdt, Halt, ReadTime, InterruptReturn, SysExit, SysRet, Syscall, InterruptCall, Vmcall, Out,
}

/// <summary>Which instructions of the guest are special, read once for each address.</summary>
internal sealed unsafe class SpecialInstructions(int bitness, byte* memory, int start, int end)
{
    private const byte NotRead = 0xff;

    private readonly byte[] _kinds = Fresh(end - start);

    public Special At(ulong address)
    {
        ref byte kind = ref _kinds[(int)address - start];
        if (kind == NotRead)
        {
            kind = (byte)KindOf(Decode(address));
        }

        return (Special)kind;
    }

    public int LengthAt(ulong address) => Decode(address).Length;

    public string TextAt(ulong address) => Decode(address).ToString();

    /// <summary>The register an instruction takes its value from, or its address.</summary>
    public CpuRegister OperandAt(ulong address)
    {
        Instruction instruction = Decode(address);
        Register register = instruction.Op0Kind == OpKind.Memory ? instruction.MemoryBase : instruction.Op1Register;
        return register.GetFullRegister() switch
        {
            Register.RAX => CpuRegister.Rax,
            Register.RDI => CpuRegister.Rdi,
            _ => throw new GuestException($"{instruction} takes its operand from a register that the guest is not known to use"),
        };
    }

    private static byte[] Fresh(int length)
    {
        byte[] kinds = new byte[length];
        kinds.AsSpan().Fill(NotRead);
        return kinds;
    }

    private Instruction Decode(ulong address)
    {
        var decoder = Decoder.Create(bitness, new ReadOnlySpan<byte>(memory + address, 15).ToArray(), address);
        return decoder.Decode();
    }

    private static Special KindOf(in Instruction instruction) => instruction.Mnemonic switch
    {
        Mnemonic.Cli => Special.Cli,
        Mnemonic.Sti => Special.Sti,
        Mnemonic.Pushfq or Mnemonic.Pushfd or Mnemonic.Popfq or Mnemonic.Popfd => Special.Flags,
        Mnemonic.Swapgs => Special.SwapGs,
        Mnemonic.Mov when instruction.Op0Register == Register.CR3 => Special.WriteCr3,
        Mnemonic.Mov when instruction.Op1Register is Register.CR2 or Register.CR3 => Special.ReadControl,
        Mnemonic.Clts => Special.Clts,
        Mnemonic.Wbinvd => Special.Wbinvd,
        Mnemonic.Invlpg => Special.FlushPage,
        Mnemonic.Lidt => Special.LoadIdt,
        Mnemonic.Hlt => Special.Halt,
        Mnemonic.Rdtsc => Special.ReadTime,
        Mnemonic.Iretd or Mnemonic.Iretq => Special.InterruptReturn,
        Mnemonic.Sysexit or Mnemonic.Sysexitq => Special.SysExit,
        Mnemonic.Sysret or Mnemonic.Sysretq => Special.SysRet,
        Mnemonic.Syscall => Special.Syscall,
        Mnemonic.Int => Special.InterruptCall,
        Mnemonic.Vmcall => Special.Vmcall,
        Mnemonic.Out => Special.Out,
        Mnemonic.Nop => Special.Nop,
        Mnemonic.Call or Mnemonic.Jmp when instruction.Op0Kind == OpKind.Memory => Special.ThroughTable,
        _ when IsLongNop(instruction) => Special.Nop,
        _ => Special.None,
    };

    // In 32-bit code, nops of several bytes are lea and mov of a register onto itself.
    private static bool IsLongNop(in Instruction instruction) =>
        instruction.Mnemonic switch
        {
            Mnemonic.Lea => instruction.MemoryBase == instruction.Op0Register && instruction.MemoryIndex == Register.None
                && instruction.MemoryDisplacement64 == 0,
            Mnemonic.Mov => instruction.Op1Kind == OpKind.Register && instruction.Op0Register == instruction.Op1Register,
            _ => false,
        };
}
