namespace PvPatch.Linux.BootText;

/// <summary>The jumps of <c>.return_sites</c> to the return thunk, 5 bytes each.</summary>
/// <remarks>
/// Each becomes what <see cref="ReturnForm"/> says: a return, or a jump to the thunk that the kernel chose. One that is a static call's
/// trampoline and goes elsewhere by now stays as it is.
/// </remarks>
internal sealed class ReturnSites : ITextMechanism
{
    private const int Length = 5;
    private const string FileThunk = "__x86_return_thunk";

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

        Span<byte> code = stackalloc byte[Length];
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
            else if (ReturnForm.Make(run, address, code) != ReturnState.Unknown)
            {
                run.Write(address, code, Kind);
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
