using System.Buffers.Binary;
using Iced.Intel;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Layouts;

/// <summary>
/// Proves an order of slots by what the image's tables hold: many native functions are there for one instruction, which must be in the
/// function at the slot's place; and no slot may hold a function that is named after another slot.
/// </summary>
internal sealed class LayoutProof(ElfImage elf, KernelSymbols? symbols)
{
    // Fewer than this prove nothing.
    private const int FewestConfirmed = 8;

    // Without PARAVIRT_XXL there are 10 to 18 slots; of so few, five functions named after theirs leave no room for another order.
    private const int SmallTable = 20;
    private const int FewestNamed = 5;

    // Native functions of one instruction are short; frame pointers and stack protection included they end well before this.
    private const int LongestFunction = 96;

    private const int MayCall = 1;

    private static readonly Dictionary<string, Mnemonic[]> s_instructions = new()
    {
        ["irq_disable"] = [Mnemonic.Cli],
        ["irq_enable"] = [Mnemonic.Sti],
        ["save_fl"] = [Mnemonic.Pushfd, Mnemonic.Pushfq],
        ["restore_fl"] = [Mnemonic.Popfd, Mnemonic.Popfq],
        ["safe_halt"] = [Mnemonic.Hlt],
        ["halt"] = [Mnemonic.Hlt],
        ["clts"] = [Mnemonic.Clts],
        ["wbinvd"] = [Mnemonic.Wbinvd],
        ["load_tr_desc"] = [Mnemonic.Ltr],
        ["store_tr"] = [Mnemonic.Str],
        ["load_gdt"] = [Mnemonic.Lgdt],
        ["load_idt"] = [Mnemonic.Lidt],
        ["store_gdt"] = [Mnemonic.Sgdt],
        ["store_idt"] = [Mnemonic.Sidt],
        ["cpuid"] = [Mnemonic.Cpuid],
        ["read_msr"] = [Mnemonic.Rdmsr],
        ["write_msr"] = [Mnemonic.Wrmsr],
        ["read_tsc"] = [Mnemonic.Rdtsc],
        ["read_tscp"] = [Mnemonic.Rdtscp],
        ["read_pmc"] = [Mnemonic.Rdpmc],
        ["swapgs"] = [Mnemonic.Swapgs],
        ["iret"] = [Mnemonic.Iretd, Mnemonic.Iretq],
        ["irq_enable_sysexit"] = [Mnemonic.Sysexit, Mnemonic.Sysexitq],
        ["usergs_sysret64"] = [Mnemonic.Sysretq],
        ["usergs_sysret32"] = [Mnemonic.Sysret],
        ["flush_tlb_single"] = [Mnemonic.Invlpg],
    };

    private static readonly Dictionary<string, Register> s_readsControl = new()
    {
        ["read_cr0"] = Register.CR0,
        ["read_cr2"] = Register.CR2,
        ["read_cr3"] = Register.CR3,
        ["read_cr4"] = Register.CR4,
        ["read_cr4_safe"] = Register.CR4,
        ["read_cr8"] = Register.CR8,
    };

    private static readonly Dictionary<string, Register> s_writesControl = new()
    {
        ["write_cr0"] = Register.CR0,
        ["write_cr2"] = Register.CR2,
        ["write_cr3"] = Register.CR3,
        ["write_cr4"] = Register.CR4,
        ["write_cr8"] = Register.CR8,
    };

    // Many orders have the same function at the same place.
    private readonly Dictionary<(string Slot, ulong Function), bool> _instructions = [];

    /// <summary>Whether the image's tables are in the order of a layout.</summary>
    /// <param name="layout">The layout.</param>
    /// <param name="words">The address of each slot's word; 0 where it is not known.</param>
    public bool Holds(OpsLayout layout, IReadOnlyList<VirtualAddress> words)
    {
        HashSet<string> names = [.. layout.Slots.Select(static s => s.ShortName)];
        int confirmed = 0;
        int named = 0;
        foreach (OpSlot slot in layout.Slots)
        {
            if (slot.Kind == SlotKind.Data || words[slot.Index].IsZero || !TryReadPointer(words[slot.Index], out ulong pointer)
                || pointer == 0)
            {
                continue;
            }

            if (!elf.TryGetSectionAt(pointer, out ElfSection? section) || !section.IsExecutable)
            {
                return false;
            }

            if (Says(slot, pointer, names, out bool isNamed) is bool says)
            {
                if (!says)
                {
                    return false;
                }

                confirmed++;
                named += isNamed ? 1 : 0;
            }
        }

        return confirmed >= FewestConfirmed || (layout.Count <= SmallTable && named >= FewestNamed);
    }

    /// <summary>Whether a function is that of a slot; <see langword="null"/> where that is not known.</summary>
    private bool? Says(OpSlot slot, ulong function, HashSet<string> names, out bool isNamed)
    {
        string? named = symbols is null ? null : SlotNamedBy(function, slot.ShortName, names);
        isNamed = named is not null;
        if (isNamed)
        {
            return named == slot.ShortName;
        }

        bool known = s_instructions.ContainsKey(slot.ShortName) || s_readsControl.ContainsKey(slot.ShortName)
            || s_writesControl.ContainsKey(slot.ShortName);
        if (known && !_instructions.ContainsKey((slot.ShortName, function)))
        {
            _instructions[(slot.ShortName, function)] = HasInstruction(slot.ShortName, function, MayCall);
        }

        return known ? _instructions[(slot.ShortName, function)] : null;
    }

    /// <summary>The slot that a function of the kernel is named after: <c>native_set_pte</c>. A function may go by several names.</summary>
    private string? SlotNamedBy(ulong function, string expected, HashSet<string> names)
    {
        string? other = null;
        foreach (KernelSymbol symbol in symbols!.FindAt(function))
        {
            int native = symbol.Name.IndexOf("native_", StringComparison.Ordinal);
            string name = native < 0 ? "" : symbol.Name[(native + "native_".Length)..];
            if (name == expected)
            {
                return name;
            }

            // native_read_msr_safe is what read_msr held before there was a slot of that name.
            other = names.Contains(name) ? name : other;
        }

        return other;
    }

    /// <param name="slot">The slot.</param>
    /// <param name="function">The function.</param>
    /// <param name="calls">Depth to which functions it calls are followed: those of callee-save slots are called by a thunk.</param>
    private bool HasInstruction(string slot, ulong function, int calls)
    {
        Memory<byte> code = default;
        for (int length = LongestFunction; length > 0 && !elf.TryGetBytes(function, length, out code); length /= 2)
        {
        }

        var bytes = new ByteArrayCodeReader(code.ToArray());
        var decoder = Decoder.Create(elf.Bitness, bytes, function);
        while (decoder.IP - function < (ulong)code.Length)
        {
            decoder.Decode(out Instruction instruction);
            if (IsOf(slot, instruction)
                || (calls > 0 && instruction.IsCallNear && HasInstruction(slot, instruction.NearBranchTarget, calls - 1)))
            {
                return true;
            }

            // Functions with a jump label or a mitigation in them jump over it (halt of 5.10); only forward, so this ends.
            if (instruction.IsJmpShortOrNear && instruction.NearBranchTarget >= decoder.IP
                && instruction.NearBranchTarget - function < (ulong)code.Length)
            {
                bytes.Position = (int)(instruction.NearBranchTarget - function);
                decoder.IP = instruction.NearBranchTarget;
                continue;
            }

            if (instruction.IsInvalid
                || instruction.FlowControl is FlowControl.Return or FlowControl.UnconditionalBranch or FlowControl.IndirectBranch)
            {
                return false;
            }
        }

        return false;
    }

    private static bool IsOf(string slot, in Instruction instruction) =>
        s_instructions.TryGetValue(slot, out Mnemonic[]? mnemonics) ? Array.IndexOf(mnemonics, instruction.Mnemonic) >= 0
        : instruction.Mnemonic == Mnemonic.Mov
            && (s_readsControl.TryGetValue(slot, out Register read) ? instruction.Op1Register == read
                : s_writesControl.TryGetValue(slot, out Register written) && instruction.Op0Register == written);

    private bool TryReadPointer(VirtualAddress address, out ulong pointer)
    {
        int word = elf.Bitness / 8;
        bool there = elf.TryGetBytes(address, word, out Memory<byte> bytes);
        pointer = !there ? 0 : word == 8
            ? BinaryPrimitives.ReadUInt64LittleEndian(bytes.Span) : BinaryPrimitives.ReadUInt32LittleEndian(bytes.Span);
        return there;
    }
}
