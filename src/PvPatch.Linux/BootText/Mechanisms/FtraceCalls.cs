namespace PvPatch.Linux.BootText;

/// <summary>
/// Calls of <c>__fentry__</c> at the start of functions (<c>__mcount_loc</c>): each becomes a nop while nothing is traced.
/// </summary>
/// <remarks>
/// Records are absolute addresses of 8 bytes. Those outside the text belonged to functions that another one took the place of, and are
/// void.
/// </remarks>
internal sealed class FtraceCalls : ITextMechanism
{
    private const int Stride = sizeof(ulong);

    /// <inheritdoc/>
    public TextMechanism Kind => TextMechanism.Ftrace;

    /// <inheritdoc/>
    public int Count(TextKernel kernel)
    {
        TextTable table = kernel.Table(TextTableKind.Ftrace);
        int count = 0;
        for (int i = 0; i < table.CountOf(Stride); i++)
        {
            count += kernel.IsText(table.Value64(i * Stride), 5) ? 1 : 0;
        }

        return count;
    }

    /// <inheritdoc/>
    public void Apply(TextRun run)
    {
        TextTable table = run.Kernel.Table(TextTableKind.Ftrace);
        VirtualAddress? entry = run.Kernel.Symbol("__fentry__");
        for (int i = 0; i < table.CountOf(Stride); i++)
        {
            VirtualAddress address = table.Value64(i * Stride);
            if (!run.Text.TryGet(address, 5, out ReadOnlySpan<byte> found))
            {
                continue; // void
            }

            if (found[0] == BranchBytes.Call && (entry is null || BranchBytes.Target(address, found) == entry))
            {
                run.WriteNop5(address, TextMechanism.Ftrace);
            }
            else if (!found.SequenceEqual(BranchBytes.Nop5))
            {
                run.ReportUnexpected(TextMechanism.Ftrace, address, found, "a call of __fentry__");
            }
        }
    }
}
