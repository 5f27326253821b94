using PvPatch.Linux.Symbols;

namespace PvPatch.Linux.BootText;

/// <summary>
/// Trampolines of static calls (<c>__SCT__x</c>): where modules that do not know the key, and indirect callers, go through. One is written
/// when its key gets another function than the file's.
/// </summary>
/// <remarks>
/// <code>
///   key->func = the file's       the file's bytes
///   another function             e9 rel32
///   NULL                         c3 cc cc cc cc
/// </code>
/// Behind the 5 bytes stands <c>0f b9 cc</c> (ud1 %esp,%ecx), by which a trampoline is known; in 5.10 <c>cc cc cc</c>. It is written once
/// and not again when the return thunk is chosen; one that is a return in the file is a return site besides.
/// </remarks>
internal sealed class StaticTrampolines : ITextMechanism
{
    private const string KeyPrefix = "__SCK__";
    private const string TrampolinePrefix = "__SCT__";

    /// <inheritdoc/>
    public TextMechanism Kind => TextMechanism.StaticTrampoline;

    private static ReadOnlySpan<byte> Mark => [0x0f, 0xb9, 0xcc];

    private static ReadOnlySpan<byte> OldMark => [0xcc, 0xcc, 0xcc];

    /// <inheritdoc/>
    public int Count(TextKernel kernel) => Find(kernel).Count;

    /// <inheritdoc/>
    public void Apply(TextRun run)
    {
        foreach ((VirtualAddress key, VirtualAddress trampoline) in Find(run.Kernel))
        {
            if (!run.State.StaticCalls.TryGetValue(key, out VirtualAddress function))
            {
                run.LeaveOpen(trampoline, 5, TextMechanism.StaticTrampoline);
            }
            else if (function.Value != run.Kernel.FileWord(key))
            {
                if (function.IsZero)
                {
                    run.Write(trampoline, BranchBytes.Return, TextMechanism.StaticTrampoline);
                }
                else
                {
                    run.WriteBranch(trampoline, BranchBytes.Jump, function, TextMechanism.StaticTrampoline);
                }
            }
        }
    }

    /// <summary>The keys of a kernel, those without a site or trampoline too.</summary>
    public static IEnumerable<VirtualAddress> Keys(TextKernel kernel)
    {
        var keys = new HashSet<VirtualAddress>();
        TextTable table = kernel.Table(TextTableKind.StaticCalls);
        for (int i = 0; i < table.CountOf(StaticCallSite.Stride); i++)
        {
            keys.Add(StaticCallSite.Read(table, i).Key);
        }

        foreach (KernelSymbol symbol in kernel.Image.Symbols?.StartingWith(KeyPrefix) ?? [])
        {
            keys.Add(symbol.Address);
        }

        return keys.Where(k => kernel.IsData(k, sizeof(ulong)));
    }

    /// <summary>
    /// Keys with their trampolines: by what their sites call in the file, else by name where just one key and one trampoline have it.
    /// </summary>
    internal static Dictionary<VirtualAddress, VirtualAddress> Find(TextKernel kernel)
    {
        var found = new Dictionary<VirtualAddress, VirtualAddress>();
        TextTable table = kernel.Table(TextTableKind.StaticCalls);
        for (int i = 0; i < table.CountOf(StaticCallSite.Stride); i++)
        {
            StaticCallSite site = StaticCallSite.Read(table, i);
            if (!found.ContainsKey(site.Key) && kernel.Elf.TryGetBytes(site.Address, 5, out Memory<byte> bytes)
                && bytes.Span[0] is BranchBytes.Call or BranchBytes.Jump)
            {
                VirtualAddress target = BranchBytes.Target(site.Address, bytes.Span);
                if (IsTrampoline(kernel, target))
                {
                    found.Add(site.Key, target);
                }
            }
        }

        if (kernel.Image.Symbols is not KernelSymbols symbols)
        {
            return found;
        }

        Dictionary<string, VirtualAddress?> trampolines = Unique(symbols, TrampolinePrefix);
        foreach ((string name, VirtualAddress? key) in Unique(symbols, KeyPrefix))
        {
            if (key is VirtualAddress one && trampolines.GetValueOrDefault(name) is VirtualAddress trampoline
                && kernel.IsData(one, sizeof(ulong)) && IsTrampoline(kernel, trampoline))
            {
                found.TryAdd(one, trampoline);
            }
        }

        return found;
    }

    private static bool IsTrampoline(TextKernel kernel, VirtualAddress address) =>
        kernel.Elf.TryGetBytes(address, 8, out Memory<byte> bytes)
        && (bytes.Span[5..].SequenceEqual(Mark) || (kernel.Rules.RewritesJumpLabels && bytes.Span[5..].SequenceEqual(OldMark)));

    private static Dictionary<string, VirtualAddress?> Unique(KernelSymbols symbols, string prefix)
    {
        var found = new Dictionary<string, VirtualAddress?>(StringComparer.Ordinal);
        foreach (KernelSymbol symbol in symbols.StartingWith(prefix))
        {
            string name = symbol.Name[prefix.Length..];
            found[name] = found.ContainsKey(name) ? null : symbol.Address;
        }

        return found;
    }
}
