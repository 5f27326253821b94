using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using Iced.Intel;
using PvPatch.Linux.Elf;
using PvPatch.Ops;

namespace PvPatch.Linux.Kernel;

/// <summary>
/// The backend an image holds: its ops table on disk has the native functions, and they are what stands there when a native boot
/// patches its sites (measured on 5.10 to 7.2: no pointer changes before).
/// </summary>
internal sealed class NativeTable
{
    // Slots that have nothing to do natively in every kernel with one table; all hold the same empty function.
    private static readonly string[] s_emptyByDesign = ["mmu.alloc_pte", "mmu.alloc_pmd", "mmu.release_pte", "mmu.release_pmd", "cpu.alloc_ldt", "cpu.free_ldt"];

    private readonly ElfImage _elf;
    private readonly Func<VirtualAddress, string?> _name;

    public NativeTable(ElfImage elf, Func<VirtualAddress, string?> name)
    {
        _elf = elf;
        _name = name;
    }

    /// <summary>Makes the backend, and says which function is the empty one.</summary>
    public bool TryRead(OpsLayout layout, VirtualAddress table, [NotNullWhen(true)] out Backend? native, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        native = null;
        int word = _elf.Bitness / 8;
        if (!_elf.TryGetBytes(table, layout.Count * word, out Memory<byte> bytes))
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.OpsTableNotFound, "the ops table is not in the file") with
            {
                Address = table,
                Found = "an address outside every section with contents",
                Expected = $"{layout.Count} words",
            };
            return false;
        }

        ulong[] pointers = new ulong[layout.Count];
        for (int i = 0; i < pointers.Length; i++)
        {
            ReadOnlySpan<byte> at = bytes.Span[(i * word)..];
            pointers[i] = word == 8 ? BinaryPrimitives.ReadUInt64LittleEndian(at) : BinaryPrimitives.ReadUInt32LittleEndian(at);
            if (pointers[i] != 0 && !IsCode(pointers[i]))
            {
                error = PatchDiagnostic.Error(KernelDiagnosticCodes.OpsTableNotFound, $"the ops table holds no function for {layout[i]}") with
                {
                    Address = table + i * word,
                    Found = new VirtualAddress(pointers[i]).ToString(),
                    Expected = "0 or an address in a section of code",
                    Help = "The address of the ops table, or its layout, is not this kernel's.",
                };
                return false;
            }
        }

        if (!TryFindNop(layout, pointers, out VirtualAddress nop, out error))
        {
            return false;
        }

        native = Backend.Create("native", layout, b => Fill(b, pointers, nop));
        return true;
    }

    private void Fill(BackendBuilder backend, ulong[] pointers, VirtualAddress nop)
    {
        foreach (OpSlot slot in backend.Layout.Slots)
        {
            var target = new VirtualAddress(pointers[slot.Index]);
            string? name = target.IsZero ? null : _name(target);
            backend.Set(
                slot.Name,
                target.IsZero ? Operation.Missing
                : target == nop ? Operation.Nop.WithTarget(target, name ?? "_paravirt_nop")
                : slot.Kind == SlotKind.Jump ? Operation.Jump(target, name)
                : Operation.Call(target, name));
        }
    }

    /// <summary>
    /// The patcher compares pointers with the address of its empty function. Without symbols that is the function the slots hold which
    /// do nothing by design; that it is empty is checked, and that they agree.
    /// </summary>
    private bool TryFindNop(OpsLayout layout, ulong[] pointers, out VirtualAddress nop, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        HashSet<ulong> candidates = [];
        foreach (string name in s_emptyByDesign)
        {
            if (layout.TryGetSlot(name, out OpSlot? slot))
            {
                candidates.Add(pointers[slot.Index]);
            }
        }

        nop = candidates.FirstOrDefault();
        if (candidates.Count == 1 && IsEmptyFunction(nop))
        {
            error = null;
            return true;
        }

        error = PatchDiagnostic.Error(KernelDiagnosticCodes.OpsTableNotFound, "the kernel's empty function cannot be told from its ops table") with
        {
            Found = candidates.Count == 0 ? "none of the slots that are empty by design" : string.Join(", ", candidates.Select(static c => new VirtualAddress(c))),
            Expected = $"one function that only returns, in {string.Join(", ", s_emptyByDesign)}",
            Help = "Is this a kernel built with CONFIG_PARAVIRT_XXL, and its original image?",
        };
        return false;
    }

    /// <summary>Whether a function does nothing but return: perhaps an endbr64, then ret or a jump to the return thunk.</summary>
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
