namespace PvPatch.Linux.BootText;

/// <summary>
/// The jump at <c>early_xen_iret_patch</c>: in the file to what follows it (<c>e9 00 00 00 00</c>), in a Xen PV guest to <c>xen_iret</c>.
/// </summary>
internal sealed class XenIretPatch : ITextMechanism
{
    /// <summary>X86_FEATURE_XENPV, word 8 bit 16.</summary>
    public const int XenPv = (8 * 32) + 16;

    /// <inheritdoc/>
    public TextMechanism Kind => TextMechanism.XenIret;

    /// <inheritdoc/>
    public int Count(TextKernel kernel) => kernel.Symbol("early_xen_iret_patch") is null ? 0 : 1;

    /// <inheritdoc/>
    public void Apply(TextRun run)
    {
        if (run.Kernel.Symbol("early_xen_iret_patch") is not VirtualAddress address
            || run.Kernel.Symbol("xen_iret") is not VirtualAddress target || run.State.Features.Has(XenPv) == false)
        {
            return;
        }

        if (!run.Text.TryGet(address, 5, out ReadOnlySpan<byte> found))
        {
            run.ReportOutside(TextMechanism.XenIret, address, 5);
        }
        else if (!found.SequenceEqual((ReadOnlySpan<byte>)[BranchBytes.Jump, 0, 0, 0, 0]))
        {
            run.ReportUnexpected(TextMechanism.XenIret, address, found, "e9 00 00 00 00: a jump to what follows");
        }
        else if (run.State.Features.Has(XenPv) is null)
        {
            run.LeaveOpen(address, 5, TextMechanism.XenIret);
        }
        else
        {
            run.WriteBranch(address, BranchBytes.Jump, target, TextMechanism.XenIret);
        }
    }
}
