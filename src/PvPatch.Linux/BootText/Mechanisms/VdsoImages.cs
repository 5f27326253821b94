using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tables;

namespace PvPatch.Linux.BootText;

/// <summary>An image of user space's vDSO that the kernel carries in its data, and patches there by the image's own alternatives.</summary>
/// <param name="Name">The symbol that names it.</param>
/// <param name="Address">Link address of its first byte.</param>
/// <param name="Bytes">Its bytes in the file.</param>
/// <param name="Alternatives">Offset of its table of alternatives.</param>
/// <param name="AlternativesLength">Size of that table in bytes.</param>
internal readonly record struct VdsoImage(
    string Name, VirtualAddress Address, ReadOnlyMemory<byte> Bytes, int Alternatives, int AlternativesLength)
{
    /// <summary>Reads its alternatives, which have the format of the kernel's.</summary>
    /// <param name="kernel">The kernel.</param>
    /// <param name="table">The records.</param>
    /// <param name="error">What is wrong with the table.</param>
    public bool TryReadAlternatives(
        TextKernel kernel, [NotNullWhen(true)] out AltInstrTable? table, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        table = null;
        return kernel.TryReadAlternatives(out AltInstrTable? own, out error)
            && AltInstrTable.TryRead(Bytes.Span.Slice(Alternatives, AlternativesLength), Address + Alternatives, own.Format,
                kernel.Elf.Bitness, kernel.Elf.TryGetFileOffset(Address, 1, out long offset) ? offset + Alternatives : 0, out table,
                out error);
    }
}

/// <summary>Finds the vDSO images of a kernel: one for each mode of user space.</summary>
internal static class VdsoImages
{
    // The names to 6.18 or so, then those of 7.2.
    private static readonly string[] s_symbols =
        ["vdso_image_64", "vdso_image_x32", "vdso_image_32", "vdso64_image", "vdsox32_image", "vdso32_image"];

    // struct vdso_image: the address, size in bytes, offset of the alternatives, and their size; a word each.
    private const int HeaderSize = 4 * sizeof(ulong);

    /// <summary>The images. One whose header names bytes that are not in the file, or code that is the kernel's own, is none.</summary>
    /// <param name="kernel">The kernel.</param>
    /// <param name="findings">Where such headers are reported.</param>
    public static IReadOnlyList<VdsoImage> Find(TextKernel kernel, DiagnosticList? findings = null)
    {
        var found = new List<VdsoImage>();
        List<(VirtualAddress Address, int Length)> taken =
            [.. kernel.Elf.Sections.Where(TextImage.IsText).Select(static s => (s.Address, (int)s.Size))];
        foreach (string symbol in kernel.Elf.Bitness == 64 ? s_symbols : [])
        {
            if (kernel.Symbol(symbol) is not VirtualAddress header)
            {
                continue;
            }

            if (TryRead(kernel.Elf, symbol, header, out VdsoImage image)
                && !taken.Any(t => t.Address < image.Address + image.Bytes.Length && image.Address < t.Address + t.Length))
            {
                found.Add(image);
                taken.Add((image.Address, image.Bytes.Length));
            }
            else
            {
                findings?.Add(PatchDiagnostic.Error(KernelDiagnosticCodes.TextRecordOutside, "the header of a vDSO image lies") with
                {
                    Address = header,
                    Found = symbol,
                    Expected = "an image in the kernel's data, with a table of alternatives inside it",
                });
            }
        }

        return found;
    }

    private static bool TryRead(ElfImage elf, string name, VirtualAddress address, out VdsoImage image)
    {
        image = default;
        if (!elf.TryGetBytes(address, HeaderSize, out Memory<byte> header))
        {
            return false;
        }

        ulong data = Word(header.Span, 0);
        ulong size = Word(header.Span, 1);
        ulong alternatives = Word(header.Span, 2);
        ulong length = Word(header.Span, 3);
        if (size is 0 or > int.MaxValue || alternatives > size || length > size - alternatives
            || !elf.TryGetBytes(data, (int)size, out Memory<byte> bytes))
        {
            return false;
        }

        image = new VdsoImage(name, data, bytes, (int)alternatives, (int)length);
        return true;
    }

    private static ulong Word(ReadOnlySpan<byte> words, int index) =>
        BinaryPrimitives.ReadUInt64LittleEndian(words[(index * sizeof(ulong))..]);
}
