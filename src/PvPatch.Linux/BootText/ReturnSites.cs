namespace PvPatch.Linux.BootText;

/// <summary>The jumps of <c>.return_sites</c> to the return thunk, 5 bytes each.</summary>
/// <remarks>
/// <list type="table">
/// <listheader><term>features, thunk</term><description>site</description></listheader>
/// <item><term>not RETHUNK</term><description>c3 cc cc cc cc</description></item>
/// <item><term>RETHUNK, its_return_thunk, site in the upper half of a line of 64 bytes</term><description>c3 cc cc cc cc</description></item>
/// <item><term>RETHUNK</term><description>e9 to the thunk</description></item>
/// <item><term>no jump to the return thunk any more: a static call's trampoline that goes elsewhere now</term><description>stays</description></item>
/// </list>
/// </remarks>
internal sealed class ReturnSites : ITextMechanism
{
    private const int Length = 5;
    private const string FileThunk = "__x86_return_thunk";
    private const string ItsThunk = "its_return_thunk";

    /// <inheritdoc/>
    public TextMechanism Kind => TextMechanism.Return;

    /// <inheritdoc/>
    public int Count(TextKernel kernel) => kernel.Table(TextTableKind.Returns).CountOf(sizeof(int));

    /// <inheritdoc/>
    public void Apply(TextRun run)
    {
        TextTable table = run.Kernel.Table(TextTableKind.Returns);
        if (table.Bytes.IsEmpty)
        {
            return;
        }

        if (run.Kernel.Symbol(FileThunk) is not VirtualAddress inFile)
        {
            run.ReportMissing(Kind, FileThunk);
            return;
        }

        bool? thunked = run.State.Features.Has(MitigationFeatures.ReturnThunk);
        bool halves = run.State.ReturnThunk is VirtualAddress thunk && thunk == run.Kernel.Symbol(ItsThunk);
        for (int i = 0; i < table.Bytes.Length; i += sizeof(int))
        {
            VirtualAddress address = table.Relative(i);
            if (!run.Text.TryGet(address, Length, out ReadOnlySpan<byte> bytes))
            {
                run.ReportOutside(Kind, address, Length);
            }
            else if (!IsJumpTo(address, bytes, inFile))
            {
                if (!run.Kernel.Elf.TryGetBytes(address, Length, out Memory<byte> original) || !IsJumpTo(address, original.Span, inFile))
                {
                    run.ReportUnexpected(Kind, address, bytes, "a jump to the return thunk");
                }
            }
            else if (thunked == false || (thunked == true && halves && (address.Value & 0x20) != 0))
            {
                run.Write(address, BranchBytes.Return, Kind);
            }
            else if (thunked == true && run.State.ReturnThunk is VirtualAddress target)
            {
                run.WriteBranch(address, BranchBytes.Jump, target, Kind);
            }
            else
            {
                run.LeaveOpen(address, Length, Kind);
            }
        }
    }

    private static bool IsJumpTo(VirtualAddress address, ReadOnlySpan<byte> bytes, VirtualAddress target) =>
        bytes[0] == BranchBytes.Jump && BranchBytes.Target(address, bytes) == target;
}
