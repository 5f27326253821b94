using PvPatch.Linux.Tables;
using PvPatch.Linux.Text;

namespace PvPatch.Linux.BootText;

/// <summary>
/// Call depth tracking (<c>retbleed=stuff</c>): functions get a thunk in the padding before them, which counts and falls through, and
/// calls go there.
/// </summary>
/// <remarks>
/// <code>
///            before                          after
/// f - 9      90 90 90 90 90 90 90 90 90      65 48 c1 3d d0 d1 d2 d3 05     sarq $5,%gs:depth(%rip)
/// f          ...                             ...
/// call f     e8 to f                         e8 to f - 9
/// </code>
/// Of kernels with a table of calls, while the feature is on. A call stays as it is where its target is not in [_text, _etext), is one of
/// the few that count by themselves, or has no room. Done after alternatives, for calls there too (6.12), or before and without (7.2).
/// Static calls are written once more afterwards: those of a function with a thunk become plain calls of the thunk, special forms too.
/// </remarks>
internal sealed class CallThunks : ITextMechanism
{
    private const string Template = "skl_call_thunk_template";
    private const string TemplateEnd = "skl_call_thunk_tail";
    private const int MostBytes = 32;
    private const byte Nop = 0x90;

    // They fill the return stack buffer, count by themselves, or are called before anything can count.
    private static readonly string[] s_skipped =
        ["error_entry", "paranoid_entry", "xen_error_entry", "__switch_to_asm", "ret_from_fork", "__fentry__", "soft_restart_cpu"];

    private static readonly string[] s_clockKeys = ["__SCK__pv_sched_clock", "__SCK__pv_steal_clock"];

    // The same for whatever lies in a stretch of bytes: KEXEC_CONTROL_CODE_MAX_SIZE, a page.
    private static readonly (string Symbol, int Length)[] s_skippedSpans = [("relocate_kernel", 2048), ("hypercall_page", 4096)];

    /// <inheritdoc/>
    public TextMechanism Kind => TextMechanism.CallThunk;

    /// <inheritdoc/>
    public int Count(TextKernel kernel) => kernel.Table(TextTableKind.Calls).CountOf(sizeof(int));

    /// <inheritdoc/>
    public void Apply(TextRun run)
    {
        TextTable calls = run.Kernel.Table(TextTableKind.Calls);
        bool? counted = run.State.Features.Has(MitigationFeatures.CallDepth);
        if (calls.Bytes.IsEmpty || counted == false)
        {
            return;
        }

        if (counted is null)
        {
            LeaveOpen(run, calls);
            return;
        }

        if (!TryCreate(run, out Writer writer))
        {
            return;
        }

        for (int i = 0; i < calls.Bytes.Length; i += sizeof(int))
        {
            writer.PatchCall(calls.Relative(i));
        }

        if (run.Kernel.Rules.CallThunksAtAlternatives && run.Kernel.TryReadAlternatives(out AltInstrTable? table, out _))
        {
            foreach (ref readonly AltInstr record in table.Records)
            {
                writer.PatchCall(record.Address);
            }
        }

        PatchStaticCalls(run, writer);
    }

    /// <summary>Static calls are written again when there are thunks already.</summary>
    private static void PatchStaticCalls(TextRun run, in Writer writer)
    {
        var former = new HashSet<(VirtualAddress Key, VirtualAddress Function)>();
        TextTable sites = run.Kernel.Table(TextTableKind.StaticCalls);
        for (int i = 0; i < sites.CountOf(StaticCallSite.Stride); i++)
        {
            var site = StaticCallSite.Read(sites, i);
            if (site.IsTail || !run.State.StaticCalls.TryGetValue(site.Key, out VirtualAddress target))
            {
                continue; // tail calls are jumps, which nothing counts
            }

            VirtualAddress thunk = writer.Translate(target);
            if (thunk != target)
            {
                run.WriteBranch(site.Address, BranchBytes.Call, thunk, TextMechanism.CallThunk);
            }

            // A key without a function was emptied before there were thunks (PREEMPT_DYNAMIC).
            VirtualAddress inFile = run.Kernel.FileWord(site.Key);
            if (!target.IsZero && inFile != target)
            {
                former.Add((site.Key, inFile));
            }
        }

        // What such a key called before has a thunk too if the key was changed late enough. Keys of clocks are changed at any time.
        VirtualAddress?[] clocks = [.. s_clockKeys.Select(run.Kernel.Symbol)];
        foreach ((VirtualAddress key, VirtualAddress function) in former)
        {
            if (!clocks.Contains(key))
            {
                _ = writer.Translate(function);
            }
            else if (writer.HasRoom(function, out VirtualAddress pad, out int size))
            {
                run.LeaveOpen(pad, size, TextMechanism.CallThunk);
            }
        }
    }

    private static void LeaveOpen(TextRun run, TextTable calls)
    {
        for (int i = 0; i < calls.Bytes.Length; i += sizeof(int))
        {
            VirtualAddress address = calls.Relative(i);
            run.LeaveOpen(address, 5, TextMechanism.CallThunk);
        }
    }

    private static bool TryCreate(TextRun run, out Writer writer)
    {
        writer = default;
        string[] needed = ["_text", "_etext", Template, TemplateEnd];
        foreach (string name in needed)
        {
            if (run.Kernel.Symbol(name) is null)
            {
                run.ReportMissing(TextMechanism.CallThunk, name);
                return false;
            }
        }

        VirtualAddress template = run.Kernel.Symbol(Template)!.Value;
        ulong size = unchecked(run.Kernel.Symbol(TemplateEnd)!.Value.Value - template.Value);
        if (size is 0 or > MostBytes || !run.Kernel.Elf.TryGetBytes(template, (int)size, out Memory<byte> bytes))
        {
            run.ReportOutside(TextMechanism.CallThunk, template, (int)Math.Min(size, int.MaxValue));
            return false;
        }

        writer = new Writer(
            run,
            new AddressSpan(run.Kernel.Symbol("_text")!.Value, run.Kernel.Symbol("_etext")!.Value),
            template,
            bytes.ToArray(),
            new AlternativeCode(run.Kernel.Rules.Alternatives, run.Kernel.Elf.Bitness),
            [.. s_skipped.Select(run.Kernel.Symbol).OfType<VirtualAddress>()],
            [.. s_skippedSpans.Select(s => run.Kernel.Symbol(s.Symbol) is VirtualAddress a ? new AddressSpan(a, a + s.Length) : default)]);
        return true;
    }

    /// <summary>Addresses from one on and before another.</summary>
    private readonly record struct AddressSpan(VirtualAddress Start, VirtualAddress End)
    {
        public bool Contains(VirtualAddress address) => address >= Start && address < End;
    }

    /// <summary>What is the same for all calls, and the deeds.</summary>
    private readonly record struct Writer(
        TextRun Run, AddressSpan Core, VirtualAddress TemplateAddress, byte[] TemplateBytes, AlternativeCode Code,
        HashSet<VirtualAddress> Skipped, AddressSpan[] SkippedSpans)
    {
        /// <summary>Makes a call go to the thunk of its target, where there is a call and there can be a thunk.</summary>
        public void PatchCall(VirtualAddress address)
        {
            if (!Core.Contains(address))
            {
                return;
            }

            if (!Run.Text.TryGet(address, 5, out ReadOnlySpan<byte> bytes))
            {
                // The last instruction of the text may be shorter than a call.
                if (!Run.Text.TryGet(address, 1, out bytes) || bytes[0] == BranchBytes.Call)
                {
                    Run.ReportOutside(TextMechanism.CallThunk, address, 5);
                }
            }
            else if (bytes[0] == BranchBytes.Call)
            {
                VirtualAddress target = BranchBytes.Target(address, bytes);
                VirtualAddress thunk = Translate(target);
                if (thunk != target)
                {
                    Run.WriteBranch(address, BranchBytes.Call, thunk, TextMechanism.CallThunk);
                }
            }
        }

        /// <summary>The thunk of a function, written where it is not there yet; the function itself where it has none.</summary>
        public VirtualAddress Translate(VirtualAddress function)
        {
            Span<byte> thunk = stackalloc byte[MostBytes];
            thunk = thunk[..TemplateBytes.Length];
            if (!TryMake(function, thunk, out VirtualAddress pad, out ReadOnlySpan<byte> there))
            {
                return function;
            }

            if (there.SequenceEqual(thunk))
            {
                return pad;
            }

            if (there.ContainsAnyExcept(Nop))
            {
                return function;
            }

            Run.Write(pad, thunk, TextMechanism.CallThunk);
            return pad;
        }

        /// <summary>Whether a function could have a thunk and has none.</summary>
        public bool HasRoom(VirtualAddress function, out VirtualAddress pad, out int size)
        {
            size = TemplateBytes.Length;
            Span<byte> thunk = stackalloc byte[MostBytes];
            return TryMake(function, thunk[..size], out pad, out ReadOnlySpan<byte> there) && !there.ContainsAnyExcept(Nop);
        }

        private bool TryMake(VirtualAddress function, scoped Span<byte> thunk, out VirtualAddress pad, out ReadOnlySpan<byte> there)
        {
            pad = default;
            there = default;
            if (!Core.Contains(function) || function.Value < (ulong)thunk.Length || Skips(function))
            {
                return false;
            }

            pad = function + -thunk.Length;
            TemplateBytes.CopyTo(thunk);
            return Run.Text.TryGet(pad, thunk.Length, out there) && Code.TryMove(thunk, thunk.Length, TemplateAddress - pad);
        }

        private bool Skips(VirtualAddress function)
        {
            foreach (AddressSpan span in SkippedSpans)
            {
                if (span.Contains(function))
                {
                    return true;
                }
            }

            return Skipped.Contains(function);
        }
    }
}
