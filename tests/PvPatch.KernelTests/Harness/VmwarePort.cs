using Iced.Intel;

namespace PvPatch.KernelTests.Harness;

/// <summary>
/// VMware's backdoor: in (%dx), %eax with a magic number in eax and a command in cx. QEMU has one, which answers what it knows; the clocks
/// are answered here. The kernel's functions for it all begin with vmware_.
/// </summary>
internal sealed class VmwarePort(GdbStub stub, IReadOnlyDictionary<string, ulong> symbols, VmwareOptions options) : GuestStops(stub)
{
    private const uint Magic = 0x564d_5868;
    private const ushort GetHertz = 45;
    private const ushort StealClock = 91;
    private const uint BusHertz = 66_000_000;

    protected override IEnumerable<ulong> Find()
    {
        foreach ((string _, ulong start) in symbols.Where(s => s.Key.StartsWith("vmware_", StringComparison.Ordinal) && IsCode(s.Value)))
        {
            byte[] code = ReadFunction(start, symbols);
            Decoder decoder = Decoder.Create(64, code, start);
            while (decoder.IP < start + (ulong)code.Length)
            {
                decoder.Decode(out Instruction instruction);
                if (instruction.Code == Code.In_EAX_DX)
                {
                    yield return instruction.IP;
                }
            }
        }
    }

    protected override void Answer(GdbRegisters registers)
    {
        ushort command = (ushort)registers.Rcx;
        bool known = (uint)registers.Rax == Magic
            && ((command == GetHertz && options.Hertz != 0) || (command == StealClock && options.StolenTime));
        if (!known)
        {
            Stub.StepOver(registers.Rip);
            return;
        }

        if (command == GetHertz)
        {
            registers.Rax = options.Hertz;
            registers.Rbx = 0;
            registers.Rcx = BusHertz;
        }
        else
        {
            registers.Rax = 1; // it is there, and switched on
        }

        registers.Rip++;
        Stub.WriteRegisters(registers);
    }

    private bool IsCode(ulong address) =>
        (address >= symbols["_stext"] && address < symbols["_etext"])
            || (address >= symbols["_sinittext"] && address < symbols["_einittext"]);
}
