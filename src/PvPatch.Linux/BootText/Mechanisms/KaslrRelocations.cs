using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;

namespace PvPatch.Linux.BootText;

/// <summary>
/// The relocations that the decompressor applies when it moves the kernel. They follow the ELF file inside a bzImage.
/// </summary>
/// <remarks>
/// <code>
///   end of the ELF file                                                             end
///   | 0 | 64-bit places … | 0 | inverse 32-bit places … | 0 | 32-bit places …       |
///                         `--- to 6.12; not in 7.2 ---'
/// </code>
/// A place is an s32: the link address without its upper half. The slide is added to what stands there, and taken away at inverse places
/// (distances from text to per-CPU data, which does not move).
/// </remarks>
internal sealed class KaslrRelocations : ITextMechanism
{
    /// <inheritdoc/>
    public TextMechanism Kind => TextMechanism.Relocation;

    /// <inheritdoc/>
    public int Count(TextKernel kernel)
    {
        if (!TrySplit(kernel, out ReadOnlyMemory<byte>[]? lists, out _))
        {
            return 0;
        }

        int count = 0;
        foreach (ReadOnlyMemory<byte> list in lists)
        {
            foreach (int place in MemoryMarshal.Cast<byte, int>(list.Span))
            {
                count += kernel.IsText(unchecked((ulong)place), 1) ? 1 : 0;
            }
        }

        return count;
    }

    /// <inheritdoc/>
    public void Apply(TextRun run)
    {
        if (run.State.Slide == 0)
        {
            return;
        }

        if (!TrySplit(run.Kernel, out ReadOnlyMemory<byte>[]? lists, out PatchDiagnostic? error))
        {
            run.Findings.Add(error);
            return;
        }

        if (lists.Length == 0)
        {
            return;
        }

        Apply(run, lists[0].Span, sizeof(ulong), 1);
        Apply(run, lists[^1].Span, sizeof(uint), 1);
        if (lists.Length == 3)
        {
            Apply(run, lists[1].Span, sizeof(uint), -1);
        }
    }

    private static void Apply(TextRun run, ReadOnlySpan<byte> places, int size, int sign)
    {
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        foreach (int place in MemoryMarshal.Cast<byte, int>(places))
        {
            VirtualAddress address = unchecked((ulong)place);
            if (!run.Text.TryGet(address, size, out ReadOnlySpan<byte> found))
            {
                continue; // data
            }

            if (run.State.Slide is not long slide)
            {
                run.LeaveOpen(address, size, TextMechanism.Relocation);
                continue;
            }

            bytes.Clear();
            found.CopyTo(bytes);
            BinaryPrimitives.WriteUInt64LittleEndian(
                bytes, unchecked(BinaryPrimitives.ReadUInt64LittleEndian(bytes) + (ulong)(slide * sign)));
            run.Write(address, bytes[..size], TextMechanism.Relocation);
        }
    }

    /// <summary>Splits what follows the ELF file into lists; none where nothing follows.</summary>
    private static bool TrySplit(
        TextKernel kernel, [NotNullWhen(true)] out ReadOnlyMemory<byte>[]? lists, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ReadOnlyMemory<byte> blob = kernel.Elf.File[(int)Math.Min(kernel.Elf.EndOfFileContent, kernel.Elf.File.Length)..];
        error = null;
        lists = [];
        if (blob.Length < 2 * sizeof(int))
        {
            return true;
        }

        ReadOnlySpan<int> words = MemoryMarshal.Cast<byte, int>(blob.Span);
        var found = new List<ReadOnlyMemory<byte>>();
        int end = words.Length;
        while (found.Count < 4 && end > 0)
        {
            int zero = words[..end].LastIndexOf(0);
            found.Add(blob[((zero + 1) * sizeof(int))..(end * sizeof(int))]);
            end = zero;
        }

        found.Reverse();
        lists = [.. found];
        if (blob.Length % sizeof(int) != 0 || words[0] != 0 || lists.Length is not (2 or 3))
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.RelocationsBad, "the KASLR relocations behind the kernel are damaged") with
            {
                FileOffset = kernel.Elf.EndOfFileContent,
                Found = $"{blob.Length} bytes with {lists.Length} lists",
                Expected = "two or three lists of 32-bit words, each behind a zero",
            };
        }

        return error is null;
    }
}
