using PvPatch.Machine;

namespace PvPatch.Linux.BootText;

/// <summary>The calls and jumps of <c>.retpoline_sites</c>. What each becomes is the table over <see cref="RetpolineCode"/>.</summary>
internal sealed class RetpolineSites : ITextMechanism
{
    private const string CallThunkArray = "__x86_indirect_call_thunk_array";
    private const string JumpThunkArray = "__x86_indirect_jump_thunk_array";

    /// <inheritdoc/>
    public TextMechanism Kind => TextMechanism.Retpoline;

    /// <inheritdoc/>
    public int Count(TextKernel kernel) => kernel.Table(TextTableKind.Retpolines).CountOf(sizeof(int));

    /// <inheritdoc/>
    public void Apply(TextRun run)
    {
        TextTable table = run.Kernel.Table(TextTableKind.Retpolines);
        if (table.Bytes.IsEmpty)
        {
            return;
        }

        if (run.Kernel.Symbol(MitigationFeatures.ThunkArray) is not VirtualAddress thunks)
        {
            run.ReportMissing(Kind, MitigationFeatures.ThunkArray);
            return;
        }

        var how = RetpolineState.Of(run.Kernel, run.State);
        ItsThunks? its = how.FirstItsPage is VirtualAddress page ? new ItsThunks(page, run.Kernel.Rules.ItsPageStep) : null;
        Span<byte> code = stackalloc byte[6];
        for (int i = 0; i < table.Bytes.Length; i += sizeof(int))
        {
            VirtualAddress address = table.Relative(i);
            if (!run.Text.TryGet(address, 6, out ReadOnlySpan<byte> bytes) && !run.Text.TryGet(address, 5, out bytes))
            {
                run.ReportOutside(Kind, address, 5);
            }
            else if (!RetpolineSite.TryRead(address, bytes, thunks, out RetpolineSite site))
            {
                run.ReportUnexpected(Kind, address, bytes, "a call or jump to one of the retpolines");
            }
            else
            {
                Apply(run, how, its, site, code[..site.Length]);
            }
        }
    }

    /// <summary>
    /// The first site, in the order of the table, that goes to an ITS thunk of a page of its own. Its target in memory tells where the
    /// first such page is.
    /// </summary>
    /// <param name="kernel">The kernel.</param>
    /// <param name="state">The state; its features must be known.</param>
    /// <param name="isSeen">Whether a site can be read in the memory.</param>
    /// <returns>The site; <see langword="null"/> where there is none, or features are not known.</returns>
    public static RetpolineSite? FirstItsSite(TextKernel kernel, BootState state, Func<VirtualAddress, bool> isSeen)
    {
        var how = RetpolineState.Of(kernel, state);
        if (how.IsUnchanged != false || how.Its != true || how.Lfence is not bool lfence
            || kernel.Symbol(MitigationFeatures.ThunkArray) is not VirtualAddress thunks)
        {
            return null;
        }

        TextTable table = kernel.Table(TextTableKind.Retpolines);
        for (int i = 0; i < table.Bytes.Length; i += sizeof(int))
        {
            VirtualAddress address = table.Relative(i);
            if (isSeen(address)
                && (kernel.Elf.TryGetBytes(address, 6, out Memory<byte> bytes) || kernel.Elf.TryGetBytes(address, 5, out bytes))
                && RetpolineSite.TryRead(address, bytes.Span, thunks, out RetpolineSite site)
                && RetpolineCode.IsInLowerHalf(site, lfence))
            {
                return site;
            }
        }

        return null;
    }

    private static void Apply(TextRun run, in RetpolineState how, ItsThunks? its, in RetpolineSite site, Span<byte> code)
    {
        if (how.IsUnchanged == true && how.CallDepth == false)
        {
            return;
        }

        if (how.IsUnchanged is not bool unchanged || how.CallDepth is null || how.Lfence is not bool lfence)
        {
            run.LeaveOpen(site.Address, site.Length, TextMechanism.Retpoline);
        }
        else if (unchanged)
        {
            Retarget(run, site, run.Kernel.Symbol(site.IsCall ? CallThunkArray : JumpThunkArray), code);
        }
        else if (RetpolineCode.IsInLowerHalf(site, lfence) && how.Its != false)
        {
            // A page that is not known is no array of thunks: the site stays open.
            Retarget(run, site, how.Its == true ? its?.Next(site.Register) : null, code, isThunk: true);
        }
        else if (RetpolineCode.TryInline(site, lfence, run.Kernel.Rules.RetpolineFill, how.Nops[0], code))
        {
            Span<byte> other = stackalloc byte[code.Length];
            if (how.Nops.Count > 1 && RetpolineCode.TryInline(site, lfence, run.Kernel.Rules.RetpolineFill, how.Nops[1], other)
                && !other.SequenceEqual(code))
            {
                run.LeaveOpen(site.Address, site.Length, TextMechanism.Retpoline);
            }
            else
            {
                run.Write(site.Address, code, TextMechanism.Retpoline);
            }
        }
    }

    private static void Retarget(TextRun run, in RetpolineSite site, VirtualAddress? array, Span<byte> code, bool isThunk = false)
    {
        if (array is not VirtualAddress known)
        {
            run.LeaveOpen(site.Address, site.Length, TextMechanism.Retpoline);
        }
        else if (RetpolineCode.TryRetarget(site, isThunk ? known : site.ThunkIn(known), code))
        {
            run.Write(site.Address, code, TextMechanism.Retpoline);
        }
        else
        {
            run.ReportOutOfReach(TextMechanism.Retpoline, site.Address, known);
        }
    }

    /// <summary>What decides all sites at once.</summary>
    /// <param name="IsUnchanged">Whether there are retpolines, without lfence.</param>
    /// <param name="Lfence">Whether lfence comes before inline branches.</param>
    /// <param name="CallDepth">Whether calls are counted.</param>
    /// <param name="Its">Whether branches in the lower half of a line get thunks.</param>
    /// <param name="FirstItsPage">The first page of such thunks.</param>
    /// <param name="Nops">The nops there may be.</param>
    private readonly record struct RetpolineState(
        bool? IsUnchanged, bool? Lfence, bool? CallDepth, bool? Its, VirtualAddress? FirstItsPage, IReadOnlyList<NopStyle> Nops)
    {
        public static RetpolineState Of(TextKernel kernel, BootState state)
        {
            MitigationFeatures features = kernel.Mitigations;
            bool? Has(int? feature) => feature is int number ? state.Features.Has(number) : null;
            bool? retpoline = Has(features.Retpoline);
            bool? lfence = Has(features.Lfence);
            return new RetpolineState(
                retpoline == false || lfence == true ? false : retpoline & !lfence,
                lfence,
                kernel.HasCallSites ? state.Features.Has(MitigationFeatures.CallDepth) : false,
                features.HasIts ? Has(features.ItsThunks) : false,
                state.ItsPage,
                kernel.NopChoices(state));
        }
    }
}
