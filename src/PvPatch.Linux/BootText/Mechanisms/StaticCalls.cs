namespace PvPatch.Linux.BootText;

/// <summary>One record of the static call sites.</summary>
/// <param name="Address">Link address of the site.</param>
/// <param name="Key">The key; its first word is the function.</param>
/// <param name="IsTail">Whether the record says that the site is a tail call.</param>
internal readonly record struct StaticCallSite(VirtualAddress Address, VirtualAddress Key, bool IsTail)
{
    /// <summary>The size of a record in bytes.</summary>
    public const int Stride = 8;

    /// <summary>Reads a record: s32 site, s32 key with two flags below (tail call, init text), each relative to its own field.</summary>
    public static StaticCallSite Read(TextTable table, int index)
    {
        int at = index * Stride;
        VirtualAddress key = table.Relative(at + 4);
        return new StaticCallSite(table.Relative(at), key.Value & ~3UL, (key.Value & 1) != 0);
    }
}

/// <summary>Static call sites: <c>.static_call_sites</c>. In the file each calls or jumps to its trampoline.</summary>
/// <remarks>
/// <code>
///   key->func                call site (e8)        tail call (e9)             conditional tail call (0f 8x)
///   a function               e8 rel32              e9 rel32                   0f 8x rel32
///   NULL                     nop of 5 bytes        c3 cc cc cc cc, or a       0f 8x rel32 to the return
///                                                  jump to the return thunk   thunk or a lone return
///   __static_call_return0    2e 2e 2e 31 c0        e9 rel32                   0f 8x rel32
///   __WARN_trap              67 48 0f b9 3a        e9 rel32                   0f 8x rel32
/// </code>
/// A tail call without a function is written early, when the kernel has not yet chosen how to return: it holds a plain return. Kernels that
/// have <c>static_call_force_reinit</c> write all sites a second time once the return thunk is chosen.
/// </remarks>
internal sealed class StaticCalls : ITextMechanism
{
    /// <summary>cs xor %eax,%eax with two more prefixes: the length of the call it replaces, in one instruction.</summary>
    internal static ReadOnlySpan<byte> ReturnZero => [0x2e, 0x2e, 0x2e, 0x31, 0xc0];

    /// <summary>ud1 (%edx),%rdi: the trap of WARN, with its argument in rdi.</summary>
    internal static ReadOnlySpan<byte> WarnTrap => [0x67, 0x48, 0x0f, 0xb9, 0x3a];

    /// <inheritdoc/>
    public TextMechanism Kind => TextMechanism.StaticCall;

    /// <inheritdoc/>
    public int Count(TextKernel kernel) => kernel.Table(TextTableKind.StaticCalls).CountOf(StaticCallSite.Stride);

    /// <inheritdoc/>
    public void Apply(TextRun run)
    {
        var writer = new Writer(run);
        TextTable table = run.Kernel.Table(TextTableKind.StaticCalls);
        for (int i = 0; i < table.CountOf(StaticCallSite.Stride); i++)
        {
            writer.Write(StaticCallSite.Read(table, i));
        }
    }

    private sealed class Writer(TextRun run)
    {
        private readonly VirtualAddress? _returnZero = run.Kernel.Symbol("__static_call_return0");
        private readonly VirtualAddress? _warnTrap = run.Kernel.Symbol("__WARN_trap");
        private readonly VirtualAddress? _return = run.Kernel.Symbol("__static_call_return");
        private readonly bool _isRepeated = run.Kernel.Symbol("static_call_force_reinit") is not null;

        public void Write(in StaticCallSite site)
        {
            if (!run.Text.TryGet(site.Address, 6, out ReadOnlySpan<byte> found) && !run.Text.TryGet(site.Address, 5, out found))
            {
                run.ReportOutside(TextMechanism.StaticCall, site.Address, 5);
                return;
            }

            bool isConditional = found.Length == 6 && found[0] == 0x0f && (found[1] & 0xf0) == 0x80;
            int length = isConditional ? 6 : 5;
            if (!isConditional && found[0] is not (BranchBytes.Call or BranchBytes.Jump))
            {
                run.ReportUnexpected(TextMechanism.StaticCall, site.Address, found[..5], "e8, e9 or 0f 8x: a call or jump");
                return;
            }

            if (!run.IsData(TextMechanism.StaticCall, site.Address, site.Key, sizeof(ulong)))
            {
                return;
            }

            if (!run.State.StaticCalls.TryGetValue(site.Key, out VirtualAddress function))
            {
                run.LeaveOpen(site.Address, length, TextMechanism.StaticCall);
            }
            else if (isConditional)
            {
                WriteConditional(site.Address, found[1], function);
            }
            else if (found[0] == BranchBytes.Call)
            {
                WriteCall(site.Address, function);
            }
            else if (function.IsZero)
            {
                WriteReturn(site.Address);
            }
            else
            {
                run.WriteBranch(site.Address, BranchBytes.Jump, function, TextMechanism.StaticCall);
            }
        }

        private void WriteCall(VirtualAddress address, VirtualAddress function)
        {
            if (function.IsZero)
            {
                run.WriteNop5(address, TextMechanism.StaticCall);
            }
            else if (function == _returnZero)
            {
                run.Write(address, ReturnZero, TextMechanism.StaticCall);
            }
            else if (function == _warnTrap)
            {
                run.Write(address, WarnTrap, TextMechanism.StaticCall);
            }
            else
            {
                run.WriteBranch(address, BranchBytes.Call, function, TextMechanism.StaticCall);
            }
        }

        private void WriteReturn(VirtualAddress address)
        {
            Span<byte> bytes = stackalloc byte[5];
            BranchBytes.Return.CopyTo(bytes);
            ReturnState state = _isRepeated ? ReturnForm.Make(run, address, bytes) : ReturnState.Plain;
            if (state == ReturnState.Unknown)
            {
                run.LeaveOpen(address, 5, TextMechanism.StaticCall);
                return;
            }

            run.Write(address, bytes, TextMechanism.StaticCall);
        }

        private void WriteConditional(VirtualAddress address, byte condition, VirtualAddress function)
        {
            bool? thunk = run.State.Features.Has(ReturnForm.Rethunk);
            VirtualAddress? target = !function.IsZero ? function : thunk == false ? _return : thunk == true ? run.State.ReturnThunk : null;
            Span<byte> branch = stackalloc byte[5];
            if (target is not VirtualAddress to || !BranchBytes.TryMake(condition, address + 1, to, branch))
            {
                run.LeaveOpen(address, 6, TextMechanism.StaticCall);
                return;
            }

            run.Write(address, [0x0f, .. branch], TextMechanism.StaticCall);
        }
    }
}
