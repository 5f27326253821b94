using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using Iced.Intel;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;

namespace PvPatch.Linux.Tables;

/// <summary>
/// The backend an image holds: its ops table on disk has the native functions, which it still holds when a native boot patches the sites
/// (measured on 5.10 to 7.2: no pointer changes before).
/// </summary>
internal sealed class NativeTable
{
    // Slots that have nothing to do natively in every kernel with one table; all hold the same empty function.
    private static readonly string[] s_emptyByDesign = [
        "mmu.alloc_pte", "mmu.alloc_pmd", "mmu.release_pte", "mmu.release_pmd", "cpu.alloc_ldt", "cpu.free_ldt"];

    // The same in kernels to 2.6.25; before 2.6.24 their slots had no tables.
    private static readonly string[] s_emptyByDesignBefore2626 =
        ["mmu.alloc_pt", "mmu.alloc_pd", "mmu.release_pt", "mmu.release_pd", "alloc_pt", "alloc_pd", "release_pt", "release_pd"];

    private readonly ElfImage _elf;
    private readonly KernelSymbols? _symbols;

    public NativeTable(ElfImage elf, KernelSymbols? symbols)
    {
        _elf = elf;
        _symbols = symbols;
    }

    /// <summary>
    /// Reads the functions in an image's ops table, and all functions by name: the material of every backend of the image.
    /// </summary>
    /// <param name="layout">The slots.</param>
    /// <param name="words">Their words; 0 for one that is not known.</param>
    /// <param name="targets">The functions.</param>
    /// <param name="error">The reason where there are none.</param>
    public bool TryRead(
        OpsLayout layout, IReadOnlyList<VirtualAddress> words, [NotNullWhen(true)] out SlotTargets? targets,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        targets = null;
        ulong[] pointers = new ulong[layout.Count];
        for (int i = 0; i < pointers.Length; i++)
        {
            if (words[i].IsZero)
            {
                continue;
            }

            if (!TryReadWord(words[i], out pointers[i]))
            {
                error = PatchDiagnostic.Error(KernelDiagnosticCodes.OpsTableNotFound, "the ops table is not in the file") with
                {
                    Address = words[i],
                    Found = $"the word of {layout[i]} outside every section with contents",
                    Expected = $"{layout.Count} words",
                };
                return false;
            }

            if (pointers[i] != 0 && layout[i].Kind != SlotKind.Data && !IsCode(pointers[i]))
            {
                error = PatchDiagnostic.Error(
                    KernelDiagnosticCodes.OpsTableNotFound, $"the ops table holds no function for {layout[i]}") with
                {
                    Address = words[i],
                    Found = new VirtualAddress(pointers[i]).ToString(),
                    Expected = "0 or an address in a section of code",
                    Help = "The address of the ops table, or its layout, is not this kernel's.",
                };
                return false;
            }
        }

        if (!TryFindNop(layout, words, pointers, out VirtualAddress? nop, out error))
        {
            return false;
        }

        targets = new SlotTargets(name => Resolve(name, nop)).WithNativeSlots(
            layout.Slots.Where(s => !words[s.Index].IsZero)
                .Select(s => KeyValuePair.Create(s.Name, new VirtualAddress(pointers[s.Index]))));
        return true;
    }

    private VirtualAddress? Resolve(string name, VirtualAddress? nop) =>
        name is "_paravirt_nop" or "nop_func" ? nop
        : _symbols is not null && _symbols.TryGetAddress(name, out VirtualAddress address) ? address
        : null;

    private bool TryReadWord(VirtualAddress address, out ulong value)
    {
        int word = _elf.Bitness / 8;
        bool there = _elf.TryGetBytes(address, word, out Memory<byte> bytes);
        value = !there ? 0 : word == 8
            ? BinaryPrimitives.ReadUInt64LittleEndian(bytes.Span) : BinaryPrimitives.ReadUInt32LittleEndian(bytes.Span);
        return there;
    }

    /// <summary>
    /// The patcher compares pointers with the address of its empty function. Without symbols that is the function the slots hold which
    /// do nothing by design; that it is empty is checked, and that they agree. Where none of these slots has a word that is known, no
    /// site goes through them, and the function need not be known either.
    /// </summary>
    private bool TryFindNop(
        OpsLayout layout, IReadOnlyList<VirtualAddress> words, ulong[] pointers, out VirtualAddress? nop,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        error = null;
        foreach (string name in (ReadOnlySpan<string>)["_paravirt_nop", "nop_func"])
        {
            if (_symbols is not null && _symbols.TryGetAddress(name, out VirtualAddress known) && IsCode(known.Value))
            {
                nop = known;
                return true;
            }
        }

        HashSet<ulong> candidates = [];
        bool unknown = false;
        foreach (string name in s_emptyByDesign.Concat(s_emptyByDesignBefore2626))
        {
            if (layout.TryGetSlot(name, out OpSlot? slot))
            {
                bool there = !words[slot.Index].IsZero;
                unknown |= !there;
                candidates.UnionWith(there ? [pointers[slot.Index]] : []);
            }
        }

        nop = candidates.Count == 1 ? candidates.First() : null;
        if (nop is VirtualAddress one ? IsEmptyFunction(one) : candidates.Count == 0 && (unknown || words.Contains(VirtualAddress.Zero)))
        {
            return true;
        }

        error = PatchDiagnostic.Error(
            KernelDiagnosticCodes.OpsTableNotFound, "the kernel's empty function cannot be told from its ops table") with
        {
            Found = candidates.Count == 0
                ? "none of the slots that are empty by design" : string.Join(", ", candidates.Select(static c => new VirtualAddress(c))),
            Expected = $"one function that only returns, in {string.Join(", ", s_emptyByDesign)}",
            Help = "Is this a kernel built with CONFIG_PARAVIRT_XXL, and its original image?",
        };
        return false;
    }

    /// <summary>Whether a function only returns: an optional endbr64, then ret or a jump to the return thunk.</summary>
    private bool IsEmptyFunction(VirtualAddress address)
    {
        // endbr64 and jmp rel32 have 9 bytes; the function may be the last of its section and shorter.
        Memory<byte> bytes = default;
        for (int length = 9; length > 0 && !_elf.TryGetBytes(address, length, out bytes); length--)
        {
        }

        if (bytes.IsEmpty)
        {
            return false;
        }

        var decoder = Decoder.Create(_elf.Bitness, bytes.ToArray(), address.Value);
        decoder.Decode(out Instruction instruction);
        if (instruction.Code is Code.Endbr64 or Code.Endbr32)
        {
            decoder.Decode(out instruction);
        }

        return instruction.FlowControl is FlowControl.Return or FlowControl.UnconditionalBranch;
    }

    private bool IsCode(ulong address) => _elf.TryGetSectionAt(address, out ElfSection? section) && section.IsExecutable;
}
