using System.Buffers.Binary;

namespace PvPatch.KernelTests.Harness;

/// <summary>
/// Hyper-V's model-specific registers. QEMU's translator reads those as 0 and takes writes for nothing, which does but for two: a page of
/// the guest is to become the hypercall, and one is to have what turns the time-stamp counter into time. They are written by their physical
/// address, the lower half of the value, when the kernel sets the register: native_write_msr(number, value) or, to 6.x, (number, low,
/// high).
/// </summary>
internal sealed class HyperVRegisters(GdbStub stub, IReadOnlyDictionary<string, ulong> symbols) : GuestStops(stub)
{
    private const string Function = "native_write_msr";
    private const uint HypercallRegister = 0x4000_0001;
    private const uint ReferenceTscRegister = 0x4000_0021;
    private const uint Enabled = 1;

    protected override IEnumerable<ulong> Find() => [symbols[Function]];

    protected override void Answer(GdbRegisters registers)
    {
        uint value = (uint)registers.Rsi;
        ulong page = value & 0xffff_f000;
        Stub.StepOver(registers.Rip);
        switch ((uint)registers.Rdi)
        {
            case HypercallRegister when (value & Enabled) != 0:
                // mov eax, 2; ret: there is no such hypercall. The kernel then sends the interrupt or flushes itself.
                Stub.WritePhysical(page, [0xb8, 0x02, 0x00, 0x00, 0x00, 0xc3]);

                // The clock's page comes earlier; the scheduler's later writes are better not stopped at.
                Remove(registers.Rip);
                break;
            case ReferenceTscRegister when (value & Enabled) != 0:
                Stub.WritePhysical(page, ReferenceTsc());
                break;
            default:
                break;
        }
    }

    /// <summary>
    /// Sequence (0 is "not to be used"), scale, offset. Time in units of 100 ns is the counter times scale over 2 to the 64th.
    /// </summary>
    private static byte[] ReferenceTsc()
    {
        // The counter is the host's. How fast it is need not be known well: 2.5 GHz.
        ulong scale = (ulong)(((UInt128)10_000_000 << 64) / 2_500_000_000);
        byte[] page = new byte[24];
        BinaryPrimitives.WriteUInt32LittleEndian(page, 1);
        BinaryPrimitives.WriteUInt64LittleEndian(page.AsSpan(8), scale);
        return page;
    }
}
