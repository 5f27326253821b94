using System.Buffers.Binary;
using PvPatch.Linux.Dumps;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Linux.BootText;

/// <summary>
/// The state that decides a kernel's text, inferred from the text itself: nothing is trusted but the file. All sites of a key, of a slot,
/// of a feature must agree, so what most of them say is taken; the rest then differs from the prediction.
/// </summary>
/// <remarks>
/// A place that holds none of the forms its record allows has no vote. Where a key or slot has such places only, the file's value is taken,
/// so that they are found to differ; where none of its places is in the memory, it is not known and its sites stay open.
/// </remarks>
internal static class BootStateInference
{
    private const int PageSize = 0x1000;

    /// <summary>Infers the state.</summary>
    /// <param name="kernel">The kernel.</param>
    /// <param name="memory">Its memory, of which only the text is read.</param>
    public static BootState Infer(TextKernel kernel, KernelMemory memory)
    {
        var text = new TextEvidence(kernel, memory);
        (bool? rethunk, VirtualAddress? thunk) = Returns(text);
        NopStyle? nops = Nops(text);
        bool? counted = CallsAreCounted(text);
        var features = FeatureVotes.Infer(text, new BootState { Nops = nops, ReturnThunk = thunk }, rethunk, counted);
        return new BootState
        {
            Slide = memory.Slide,
            Features = features,
            Nops = nops,
            ReturnThunk = thunk,
            IsUniprocessor = IsUniprocessor(text),
            Keys = Keys(text),
            StaticCalls = Functions(text, thunk, counted == true),
            Slots = Slots(text, features.Has(XenIretPatch.XenPv) == true, counted == true, nops),
            RuntimeConstants = Constants(text),
            ItsPage = ItsPage(text, new BootState { Features = features }),
        };
    }

    private static (bool? Rethunk, VirtualAddress? Thunk) Returns(TextEvidence text)
    {
        var targets = new Dictionary<VirtualAddress, int>();
        int plain = 0;
        TextTable table = text.Kernel.Table(TextTableKind.Returns);
        for (int at = 0; at < table.Bytes.Length; at += sizeof(int))
        {
            VirtualAddress address = table.Relative(at);
            if (!text.TryGet(address, 5, out ReadOnlySpan<byte> bytes))
            {
                continue;
            }

            if (bytes[0] == BranchBytes.Jump)
            {
                VirtualAddress target = BranchBytes.Target(address, bytes);
                targets[target] = targets.GetValueOrDefault(target) + 1;
            }
            else
            {
                plain += bytes.SequenceEqual(BranchBytes.Return) ? 1 : 0;
            }
        }

        // With ITS half of all returns are plain; a few sites that jump elsewhere are trampolines.
        (VirtualAddress most, int count) = targets.OrderByDescending(static t => t.Value).ThenBy(static t => t.Key.Value).FirstOrDefault();
        return plain + count == 0 ? (null, null) : count > plain / 4 ? (true, most) : (false, null);
    }

    private static NopStyle? Nops(TextEvidence text)
    {
        if (!text.Kernel.Rules.RewritesJumpLabels)
        {
            return null;
        }

        int p6 = 0;
        int k8 = 0;
        TextTable table = text.Kernel.Table(TextTableKind.Ftrace);
        for (int at = 0; at < table.Bytes.Length; at += sizeof(ulong))
        {
            if (text.TryGet(table.Value64(at), 5, out ReadOnlySpan<byte> bytes))
            {
                p6 += bytes.SequenceEqual(BranchBytes.Nop5) ? 1 : 0;
                k8 += bytes.SequenceEqual(BranchBytes.AtomicNop5) ? 1 : 0;
            }
        }

        return p6 == k8 ? null : p6 > k8 ? NopStyle.P6 : NopStyle.K8;
    }

    private static bool? IsUniprocessor(TextEvidence text)
    {
        int locks = 0;
        int others = 0;
        TextTable table = text.Kernel.Table(TextTableKind.SmpLocks);
        for (int at = 0; at < table.Bytes.Length; at += sizeof(int))
        {
            if (text.TryGet(table.Relative(at), 1, out ReadOnlySpan<byte> bytes))
            {
                locks += bytes[0] == 0xf0 ? 1 : 0;
                others += bytes[0] == 0x3e ? 1 : 0;
            }
        }

        return locks == others ? null : others > locks;
    }

    private static bool? CallsAreCounted(TextEvidence text)
    {
        int counted = 0;
        int plain = 0;
        TextTable table = text.Kernel.Table(TextTableKind.Calls);
        for (int at = 0; at < table.Bytes.Length; at += sizeof(int))
        {
            VirtualAddress address = table.Relative(at);
            if (text.TryGet(address, 5, out ReadOnlySpan<byte> bytes) && bytes[0] == BranchBytes.Call
                && text.Kernel.Elf.TryGetBytes(address, 5, out Memory<byte> original) && original.Span[0] == BranchBytes.Call)
            {
                VirtualAddress before = BranchBytes.Target(address, original.Span);
                VirtualAddress now = BranchBytes.Target(address, bytes);
                plain += now == before ? 1 : 0;
                counted += now == before + -CallThunks.ThunkSize ? 1 : 0;
            }
        }

        return counted == plain ? null : counted > plain;
    }

    private static Dictionary<VirtualAddress, int> Keys(TextEvidence text)
    {
        var ballot = new Ballot<VirtualAddress, int>();
        var seen = new HashSet<VirtualAddress>();
        TextTable table = text.Kernel.Table(TextTableKind.JumpLabels);
        for (int i = 0; i < table.CountOf(JumpLabel.Stride); i++)
        {
            JumpLabel label = JumpLabel.Read(table, i);
            if (!text.TryGet(label.Address, 2, out ReadOnlySpan<byte> bytes) || !text.Kernel.IsData(label.Key, sizeof(int)))
            {
                continue;
            }

            seen.Add(label.Key);
            bool isNop = bytes.SequenceEqual(BranchBytes.Nop2);
            bool isJump = bytes[0] == BranchBytes.ShortJump && label.Address + (2 + (sbyte)bytes[1]) == label.Target;
            if (text.TryGet(label.Address, 5, out bytes))
            {
                isNop |= bytes.SequenceEqual(BranchBytes.Nop5) || bytes.SequenceEqual(BranchBytes.AtomicNop5);
                isJump |= bytes[0] == BranchBytes.Jump && BranchBytes.Target(label.Address, bytes) == label.Target;
            }

            if (isNop != isJump)
            {
                ballot.Vote(label.Key, isJump != label.IsInverted ? 1 : 0);
            }
        }

        return seen.ToDictionary(
            static k => k, k => ballot.TryGetWinner(k, out int on) ? on : (text.Kernel.FileWord(k) & uint.MaxValue) != 0 ? 1 : 0);
    }

    private static Dictionary<VirtualAddress, VirtualAddress> Functions(TextEvidence text, VirtualAddress? thunk, bool counted)
    {
        var ballot = new Ballot<VirtualAddress, VirtualAddress>();
        var seen = new HashSet<VirtualAddress>();
        TextTable table = text.Kernel.Table(TextTableKind.StaticCalls);
        VirtualAddress? zero = text.Kernel.Symbol("__static_call_return0");
        VirtualAddress? trap = text.Kernel.Symbol("__WARN_trap");
        for (int i = 0; i < table.CountOf(StaticCallSite.Stride); i++)
        {
            StaticCallSite site = StaticCallSite.Read(table, i);
            if (!text.TryGet(site.Address, 5, out ReadOnlySpan<byte> bytes) || !text.Kernel.IsData(site.Key, sizeof(ulong)))
            {
                continue;
            }

            seen.Add(site.Key);
            if (bytes[0] is BranchBytes.Call or BranchBytes.Jump)
            {
                VirtualAddress target = BranchBytes.Target(site.Address, bytes);
                bool isReturn = bytes[0] == BranchBytes.Jump && target == thunk;
                if (isReturn || IsFunction(text.Kernel, ref target, counted && bytes[0] == BranchBytes.Call))
                {
                    ballot.Vote(site.Key, isReturn ? VirtualAddress.Zero : target);
                }
            }
            else if (bytes.SequenceEqual(BranchBytes.Nop5) || bytes.SequenceEqual(BranchBytes.AtomicNop5)
                || bytes.SequenceEqual(BranchBytes.Return))
            {
                ballot.Vote(site.Key, VirtualAddress.Zero);
            }
            else if ((bytes.SequenceEqual(StaticCalls.ReturnZero) ? zero
                : bytes.SequenceEqual(StaticCalls.WarnTrap) ? trap : null) is VirtualAddress special)
            {
                ballot.Vote(site.Key, special);
            }
        }

        foreach ((VirtualAddress key, VirtualAddress trampoline) in StaticTrampolines.Find(text.Kernel))
        {
            if (text.TryGet(trampoline, 5, out ReadOnlySpan<byte> bytes) && seen.Add(key))
            {
                // Only keys without sites: a trampoline may keep another form of return.
                VirtualAddress target = bytes[0] == BranchBytes.Jump ? BranchBytes.Target(trampoline, bytes) : default;
                bool isReturn = bytes.SequenceEqual(BranchBytes.Return) || target == thunk;
                if (isReturn || (bytes[0] == BranchBytes.Jump && IsFunction(text.Kernel, ref target, counted: false)))
                {
                    ballot.Vote(key, isReturn ? VirtualAddress.Zero : target);
                }
            }
        }

        return seen.ToDictionary(
            static k => k, k => ballot.TryGetWinner(k, out VirtualAddress f) ? f : new VirtualAddress(text.Kernel.FileWord(k)));
    }

    /// <summary>
    /// Whether something can be called: a symbol's address, or one outside the text, as of a module. A thunk's is made its function's.
    /// </summary>
    private static bool IsFunction(TextKernel kernel, ref VirtualAddress target, bool counted)
    {
        if (kernel.Image.Symbols is not KernelSymbols symbols)
        {
            return true;
        }

        if (counted && symbols.FindAt(target + CallThunks.ThunkSize).Count > 0 && symbols.FindAt(target).Count == 0)
        {
            target += CallThunks.ThunkSize;
            return true;
        }

        return symbols.FindAt(target).Count > 0
            || !(kernel.Elf.TryGetSectionAt(target, out ElfSection? section) && section.IsExecutable);
    }

    private static VirtualAddress?[] Slots(TextEvidence text, bool isXen, bool counted, NopStyle? nops)
    {
        KernelImage image = text.Kernel.Image;
        var words = new VirtualAddress?[image.Layout.Count];
        var ballot = new Ballot<int, VirtualAddress>();
        var native = new BootMachine { Nops = nops ?? NopStyle.P6 };
        VirtualAddress? empty = image.Targets.Find("_paravirt_nop") ?? image.Targets.Find("nop_func");
        VirtualAddress? identity = image.Targets.Find("_paravirt_ident_64");
        if (new KernelPlanner().TryPlan(image, native, out PatchPlan? plan, out _))
        {
            var planned = plan.ToDictionary(static s => s.Address, static s => s.NewBytes.ToArray());
            foreach (PatchSite site in image.Sites)
            {
                if (text.TryGet(site.Address, site.Budget, out ReadOnlySpan<byte> bytes)
                    && Function(text.Kernel, planned, site, bytes, counted, empty, identity) is VirtualAddress function)
                {
                    ballot.Vote(site.Slot, function);
                }
            }
        }

        for (int i = 0; i < words.Length; i++)
        {
            words[i] = image.SlotWords[i].IsZero ? null
                : ballot.TryGetWinner(i, out VirtualAddress function) ? function
                : new VirtualAddress(text.Kernel.FileWord(image.SlotWords[i]));
        }

        // To 5.12 the patch function is a slot without sites: Xen's does not know short forms.
        if (isXen && image.Layout.TryGetSlot("init.patch", out OpSlot? hook))
        {
            words[hook.Index] = image.Targets.Find("paravirt_patch_default") ?? VirtualAddress.Zero;
        }

        return words;
    }

    private static VirtualAddress? Function(
        TextKernel kernel, Dictionary<VirtualAddress, byte[]> native, in PatchSite site, ReadOnlySpan<byte> bytes, bool counted,
        VirtualAddress? empty, VirtualAddress? identity)
    {
        if (native.TryGetValue(site.Address, out byte[]? planned) && bytes.SequenceEqual(planned))
        {
            return kernel.FileWord(kernel.Image.SlotWords[site.Slot]);
        }

        if (bytes.Length >= 5 && bytes[0] is BranchBytes.Call or BranchBytes.Jump)
        {
            VirtualAddress target = BranchBytes.Target(site.Address, bytes);
            bool isThunked = counted && kernel.Rules.CallThunksAtAlternatives;
            return !IsFunction(kernel, ref target, isThunked) ? null
                : kernel.Image.BugTarget == target ? VirtualAddress.Zero : target;
        }

        return bytes.StartsWith((ReadOnlySpan<byte>)[0x48, 0x89, 0xf8]) ? identity : bytes[0] is 0x66 or 0x0f ? empty : null;
    }

    private static Dictionary<string, ulong> Constants(TextEvidence text)
    {
        var values = new Dictionary<string, ulong>(StringComparer.Ordinal);
        Span<byte> value = stackalloc byte[sizeof(ulong)];
        foreach (RuntimeConstant constant in RuntimeConstant.Find(text.Kernel))
        {
            var ballot = new Ballot<int, ulong>();
            for (int i = 0; i < constant.Count; i++)
            {
                if (text.TryGet(constant[i], constant.Size, out ReadOnlySpan<byte> bytes))
                {
                    value.Clear();
                    bytes.CopyTo(value);
                    ballot.Vote(0, BinaryPrimitives.ReadUInt64LittleEndian(value));
                }
            }

            if (ballot.TryGetWinner(0, out ulong winner))
            {
                values[constant.Symbol] = winner;
            }
        }

        return values;
    }

    private static VirtualAddress? ItsPage(TextEvidence text, BootState state) =>
        RetpolineSites.FirstItsSite(text.Kernel, state, a => text.TryGet(a, 6, out _)) is RetpolineSite site
            && text.TryGet(site.Address, site.Length, out ReadOnlySpan<byte> bytes) && bytes[site.Length - 5] == site.Opcode
            ? BranchBytes.Target(site.Address + (site.Length - 5), bytes[(site.Length - 5)..]).Value & ~(ulong)(PageSize - 1) : null;
}
