namespace PvPatch.Linux.BootText;

/// <summary>What a return became.</summary>
internal enum ReturnState
{
    /// <summary>The state does not say.</summary>
    Unknown,

    /// <summary>c3 and int3.</summary>
    Plain,

    /// <summary>A jump to the return thunk.</summary>
    Thunk,
}

/// <summary>The bytes of a return at a place, wherever a kernel writes one: return sites, static calls without a function.</summary>
internal static class ReturnForm
{
    /// <summary>X86_FEATURE_RETHUNK, word 11 bit 14: returns go through a thunk. The same number in 5.10 to 7.2.</summary>
    public const int Rethunk = (11 * 32) + 14;

    private const ulong UpperHalf = 0x20; // of a 64-byte cache line

    /// <summary>Makes the bytes.</summary>
    /// <param name="run">The state and the kernel.</param>
    /// <param name="address">Where the return stands.</param>
    /// <param name="bytes">The 5 bytes.</param>
    /// <returns>What they are; nothing was made where that is not known.</returns>
    public static ReturnState Make(TextRun run, VirtualAddress address, Span<byte> bytes)
    {
        if (run.State.Features.Has(Rethunk) is not bool thunks)
        {
            return ReturnState.Unknown;
        }

        if (thunks && run.State.ReturnThunk is not VirtualAddress)
        {
            return ReturnState.Unknown;
        }

        // Indirect Target Selection: only a branch whose last byte is in the lower half of a line is predicted wrongly.
        if (!thunks || (run.State.ReturnThunk == run.Kernel.Symbol("its_return_thunk") && (address.Value & UpperHalf) != 0))
        {
            BranchBytes.Return.CopyTo(bytes);
            return ReturnState.Plain;
        }

        return BranchBytes.TryMake(BranchBytes.Jump, address, run.State.ReturnThunk!.Value, bytes)
            ? ReturnState.Thunk : ReturnState.Unknown;
    }
}
