namespace PvPatch.Linux.BootText;

/// <summary>
/// Lock prefixes (<c>.smp_locks</c>): <c>f0</c> becomes <c>3e</c> (ds, without effect) on a machine with one processor.
/// </summary>
/// <remarks>
/// Only between <c>_text</c> and <c>_etext</c>: init text keeps its prefixes. A record is an s32 relative to itself, 0 for none. One that
/// does not point at a prefix is passed over, as the kernel does.
/// </remarks>
internal sealed class SmpLocks : ITextMechanism
{
    private const int Stride = sizeof(int);
    private const byte Lock = 0xf0;
    private const byte Ds = 0x3e;

    /// <inheritdoc/>
    public TextMechanism Kind => TextMechanism.SmpLock;

    /// <inheritdoc/>
    public int Count(TextKernel kernel)
    {
        TextTable table = kernel.Table(TextTableKind.SmpLocks);
        int count = 0;
        for (int at = 0; at < table.Bytes.Length; at += Stride)
        {
            count += table.Relative(at) == table.Address + at ? 0 : 1;
        }

        return count;
    }

    /// <inheritdoc/>
    public void Apply(TextRun run)
    {
        TextTable table = run.Kernel.Table(TextTableKind.SmpLocks);
        if (table.Bytes.IsEmpty || run.State.IsUniprocessor == false
            || run.Kernel.Symbol("_text") is not VirtualAddress start || run.Kernel.Symbol("_etext") is not VirtualAddress end)
        {
            return;
        }

        for (int at = 0; at < table.Bytes.Length; at += Stride)
        {
            VirtualAddress address = table.Relative(at);
            if (address == table.Address + at)
            {
                continue; // a hole
            }

            if (!run.Text.TryGet(address, 1, out ReadOnlySpan<byte> found))
            {
                run.ReportOutside(TextMechanism.SmpLock, address, 1);
            }
            else if (address >= start && address < end && found[0] == Lock)
            {
                if (run.State.IsUniprocessor is null)
                {
                    run.LeaveOpen(address, 1, TextMechanism.SmpLock);
                }
                else
                {
                    run.Write(address, [Ds], TextMechanism.SmpLock);
                }
            }
        }
    }
}
