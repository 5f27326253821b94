namespace PvPatch.KernelTests.Harness;

/// <summary>
/// TDCALL, which the translator's processor has not. It is answered, and jumped over, in all functions that have one: by success, and for
/// its leaf TDG.VP.INFO with a width of guest addresses and the attributes (Intel TDX Module ABI specification).
/// </summary>
internal sealed class TdxCalls(GdbStub stub, IReadOnlyDictionary<string, ulong> symbols) : GuestStops(stub)
{
    private const ulong HypercallLeaf = 0;
    private const ulong InfoLeaf = 1;

    /// <summary>The host takes no page away and has the guest fault for it (SEPT_VE_DISABLE); a kernel demands that.</summary>
    private const ulong Attributes = 1 << 28;

    /// <summary>
    /// The kernel takes the highest bit of that width for "shared with the host" and sets it where devices are mapped. This machine has
    /// memory below and above any true width's bit, so it is made bit 63, the one above 0 bits: then "shared" is "not executable", which is
    /// right for devices anyway.
    /// </summary>
    private const ulong AddressWidth = 0;

    private static ReadOnlySpan<byte> Instruction => [0x66, 0x0f, 0x01, 0xcc];

    protected override IEnumerable<ulong> Find()
    {
        List<ulong> places = [];
        foreach ((string _, ulong start) in symbols.Where(static s => s.Key.StartsWith("__tdcall", StringComparison.Ordinal)))
        {
            int offset = ReadFunction(start, symbols).AsSpan().IndexOf(Instruction);
            if (offset >= 0)
            {
                places.Add(start + (ulong)offset);
            }
        }

        return places;
    }

    protected override void Answer(GdbRegisters registers)
    {
        switch (registers.Rax)
        {
            case HypercallLeaf:
                registers.R10 = 0;
                registers.R11 = 0;
                break;
            case InfoLeaf:
                registers.Rcx = AddressWidth;
                registers.Rdx = Attributes;
                break;
            default:
                break;
        }

        registers.Rax = 0;
        registers.Rip += (ulong)Instruction.Length;
        Stub.WriteRegisters(registers);
    }
}
