namespace PvPatch.Linux.BootText;

/// <summary>
/// <c>endbr64</c> at functions that nothing calls through a pointer (<c>.ibt_endbr_seal</c>): overwritten, so that an indirect branch to
/// them faults. Done on every processor, and in init text too.
/// </summary>
internal sealed class EndbrSeals : ITextMechanism
{
    private const int Stride = sizeof(int);

    /// <inheritdoc/>
    public TextMechanism Kind => TextMechanism.EndbrSeal;

    /// <summary>endbr64.</summary>
    private static ReadOnlySpan<byte> Endbr => [0xf3, 0x0f, 0x1e, 0xfa];

    /// <inheritdoc/>
    public int Count(TextKernel kernel) => kernel.Table(TextTableKind.EndbrSeals).CountOf(Stride);

    /// <inheritdoc/>
    public void Apply(TextRun run)
    {
        TextTable table = run.Kernel.Table(TextTableKind.EndbrSeals);
        byte[] poison = [.. run.Kernel.Rules.EndbrPoison];
        for (int at = 0; at < table.Bytes.Length && poison.Length > 0; at += Stride)
        {
            VirtualAddress address = table.Relative(at);
            if (!run.Text.TryGet(address, Endbr.Length, out ReadOnlySpan<byte> found))
            {
                run.ReportOutside(TextMechanism.EndbrSeal, address, Endbr.Length);
            }
            else if (found.SequenceEqual(Endbr))
            {
                run.Write(address, poison, TextMechanism.EndbrSeal);
            }
            else if (!found.SequenceEqual(poison))
            {
                // The kernel warns too, and leaves it.
                run.ReportUnexpected(TextMechanism.EndbrSeal, address, found, HexBytes.Format(Endbr));
            }
        }
    }
}
