using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tables;

namespace PvPatch.Linux.BootText;

/// <summary>
/// The numbers of the features that decide returns and retpolines. Numbers move between kernels, so they are read from what the kernel's
/// own alternatives say where its code shows which is which.
/// </summary>
/// <param name="Retpoline">X86_FEATURE_RETPOLINE; <see langword="null"/> where the image does not show it.</param>
/// <param name="Lfence">X86_FEATURE_RETPOLINE_LFENCE; <see langword="null"/> where the image does not show it.</param>
/// <param name="ItsThunks">X86_FEATURE_INDIRECT_THUNK_ITS; <see langword="null"/> where the image does not show it.</param>
/// <param name="HasIts">Whether the kernel knows ITS. One that does not makes no such thunks.</param>
internal sealed record MitigationFeatures(int? Retpoline, int? Lfence, int? ItsThunks, bool HasIts)
{
    /// <summary>X86_FEATURE_CALL_DEPTH of kernels that have a table of calls; in others the number is another feature's.</summary>
    public const int CallDepth = (11 * 32) + 19;

    /// <summary>The first retpoline.</summary>
    public const string ThunkArray = "__x86_indirect_thunk_array";

    private const string ItsUser = "its_init_mod";
    private const string ItsArray = "__x86_indirect_its_thunk_array";

    // jmp *%rax; lfence and the same
    private static ReadOnlySpan<byte> Branch => [0xff, 0xe0];

    private static ReadOnlySpan<byte> FencedBranch => [0x0f, 0xae, 0xe8, 0xff, 0xe0];

    /// <summary>Reads the numbers of a kernel.</summary>
    /// <remarks>
    /// The first retpoline has two alternatives: <c>jmp *%rax</c> where there is no RETPOLINE, and the same behind lfence where there is
    /// RETPOLINE_LFENCE. The function <c>its_init_mod</c> asks for one feature; the other record of a test is always on.
    /// </remarks>
    public static MitigationFeatures Of(TextKernel kernel, AltInstrTable? alternatives)
    {
        VirtualAddress? thunks = kernel.Symbol(ThunkArray);
        VirtualAddress? user = kernel.Symbol(ItsUser);
        int? retpoline = null;
        int? lfence = null;
        int? its = null;
        foreach (ref readonly AltInstr record in alternatives is null ? [] : alternatives.Records)
        {
            if (record.Address == thunks
                && kernel.Elf.TryGetBytes(record.ReplacementAddress, Math.Max(1, (int)record.ReplacementLength), out Memory<byte> bytes))
            {
                retpoline = record.IsNot && bytes.Span.StartsWith(Branch) ? record.Feature : retpoline;
                lfence = !record.IsNot && bytes.Span.StartsWith(FencedBranch) ? record.Feature : lfence;
            }
            else if (user is VirtualAddress start && record.Feature != FeatureWords.Always
                && IsIn(kernel.Image.Symbols!, start, record.Address))
            {
                its = record.Feature;
            }
        }

        return new MitigationFeatures(retpoline, lfence, its, user is not null || kernel.Symbol(ItsArray) is not null);
    }

    private static bool IsIn(KernelSymbols symbols, VirtualAddress function, VirtualAddress address) =>
        address >= function && address - function < short.MaxValue
        && symbols.TryGetName(address, out string? name, out long offset) && name == ItsUser && address + -offset == function;
}
