using System.Buffers.Binary;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.BootText;

/// <summary>One table of runtime constants: the operands that hold one value.</summary>
/// <param name="Symbol">The variable whose value they hold.</param>
/// <param name="Size">The size of each operand in bytes: 8 for a value, 1 for a shift.</param>
/// <param name="Table">Its records: s32, each relative to itself, the address of an operand.</param>
internal readonly record struct RuntimeConstant(string Symbol, int Size, TextTable Table)
{
    private const string Value = "runtime_ptr_";
    private const string Shift = "runtime_shift_";

    /// <summary>The tables of a kernel: sections named after kind and variable.</summary>
    public static IEnumerable<RuntimeConstant> Find(TextKernel kernel)
    {
        foreach (ElfSection section in kernel.Elf.Sections)
        {
            if (section.Name.StartsWith(Value, StringComparison.Ordinal))
            {
                yield return new RuntimeConstant(section.Name[Value.Length..], sizeof(ulong), TextTable.OfSection(kernel, section.Name));
            }
            else if (section.Name.StartsWith(Shift, StringComparison.Ordinal))
            {
                yield return new RuntimeConstant(section.Name[Shift.Length..], 1, TextTable.OfSection(kernel, section.Name));
            }
        }
    }

    /// <summary>The number of operands.</summary>
    public int Count => Table.CountOf(sizeof(int));

    /// <summary>The address of an operand.</summary>
    public VirtualAddress this[int index] => Table.Relative(index * sizeof(int));
}

/// <summary>Runtime constants: operands of instructions that the kernel fills with a value it has found out (6.11 and later).</summary>
internal sealed class RuntimeConstants : ITextMechanism
{
    /// <inheritdoc/>
    public TextMechanism Kind => TextMechanism.RuntimeConstant;

    /// <inheritdoc/>
    public int Count(TextKernel kernel) => RuntimeConstant.Find(kernel).Sum(static c => c.Count);

    /// <inheritdoc/>
    public void Apply(TextRun run)
    {
        Span<byte> bytes = stackalloc byte[sizeof(ulong)];
        foreach (RuntimeConstant constant in RuntimeConstant.Find(run.Kernel))
        {
            bool known = run.State.RuntimeConstants.TryGetValue(constant.Symbol, out ulong value);
            BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
            for (int i = 0; i < constant.Count; i++)
            {
                if (known)
                {
                    run.Write(constant[i], bytes[..constant.Size], TextMechanism.RuntimeConstant);
                }
                else
                {
                    run.LeaveOpen(constant[i], constant.Size, TextMechanism.RuntimeConstant);
                }
            }
        }
    }
}
