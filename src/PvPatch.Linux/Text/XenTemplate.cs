using System.Buffers.Binary;
using PvPatch.Linux.Files;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Text;

/// <summary>
/// Functions that Xen's start-up code puts into the cpu slots, read from its template in the image (<c>xen_cpu_ops</c>). Names of functions
/// are not enough: an inline function such as native_wbinvd has a copy of its own in Xen's object file, under the same name as the native
/// one.
/// </summary>
/// <remarks>
/// Measured on 5.10, 6.1 and 6.12: all cpu slots of a booted machine equal the template. The slots of irq and mmu are changed by later
/// code, so their templates are not used. Up to 5.12 the template is a bare struct pv_cpu_ops, later a whole table of which the cpu part
/// counts.
/// </remarks>
internal static class XenTemplate
{
    /// <summary>
    /// The template's name. A kernel that has pv_ops among its symbols but not this puts Xen's functions in slot by slot.
    /// </summary>
    public const string Symbol = "xen_cpu_ops";

    private const string Table = "cpu";

    public static Backend Apply(Backend xen, KernelImage image)
    {
        OpsTable? cpu = image.Layout.Tables.FirstOrDefault(static t => t.Name == Table);
        if (cpu is null || cpu.Slots.Count == 0 || image.Targets.Find(Symbol) is not VirtualAddress template)
        {
            return xen;
        }

        int first = image.Layout.TryGetSlot("init.patch", out _) ? cpu.Slots[0].Index : 0;
        var pointers = new Dictionary<string, VirtualAddress>();
        foreach (OpSlot slot in cpu.Slots)
        {
            if (!TryReadPointer(image.Elf, template + (slot.Index - first) * (long)(image.Elf.Bitness / 8), out VirtualAddress pointer))
            {
                return xen; // not what this class knows: the names must do
            }

            pointers.Add(slot.Name, pointer);
        }

        VirtualAddress? nop = image.Targets.Find("nop_func");
        return xen.Derive(xen.Name, b =>
        {
            foreach (OpSlot slot in cpu.Slots)
            {
                VirtualAddress pointer = pointers[slot.Name];
                if (pointer != (b.Get(slot.Name).Target ?? VirtualAddress.Zero))
                {
                    b.Set(slot.Name, pointer.IsZero ? Operation.Missing
                        : pointer == nop ? Operation.Nop.WithTarget(pointer)
                        : slot.Kind == SlotKind.Jump ? Operation.Jump(pointer)
                        : Operation.Call(pointer));
                }
            }
        });
    }

    private static bool TryReadPointer(ElfImage elf, VirtualAddress address, out VirtualAddress pointer)
    {
        int word = elf.Bitness / 8;
        bool there = elf.TryGetBytes(address, word, out Memory<byte> bytes);
        pointer = !there ? default : word == 8
            ? BinaryPrimitives.ReadUInt64LittleEndian(bytes.Span) : BinaryPrimitives.ReadUInt32LittleEndian(bytes.Span);
        return there && (pointer.IsZero || (elf.TryGetSectionAt(pointer, out ElfSection? section) && section.IsExecutable));
    }
}
