using System.Buffers.Binary;
using PvPatch.Linux.BootText;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Tests.BootText;

/// <summary>A kernel moved by KASLR against the same code, linked by ld to the addresses it was moved to.</summary>
public sealed class RelocatedTextTests
{
    private const long Slide = 0x1a600000;

    // 64-bit absolute, 32-bit absolute sign-extended, and a distance to per-CPU data, which does not move.
    private const string Code = """
        .text
        _text: movabs $there, %rax
        wide: movq $there, %rbx
        narrow: movq %gs:counter(%rip), %rcx
        inverse: call there
        there: ret
        .section .percpu, "a"
        .quad 0
        counter: .quad 0

        """;

    [Fact]
    public void Text_is_what_the_linker_makes_of_it_at_the_new_addresses()
    {
        LinkedText linked = Link(static elf => Lists([At(elf, "wide", -8)], [At(elf, "inverse", -4)], [At(elf, "narrow", -4)]));

        linked.Check(linked.Predict(new BootState { Slide = Slide }, TextMechanism.Relocation));
        Assert.Equal(3, new KaslrRelocations().Count(linked.Kernel));
    }

    [Fact]
    public void Without_an_inverse_list_there_are_two()
    {
        LinkedText linked = Link(static elf => Lists([At(elf, "wide", -8)], null, [At(elf, "narrow", -4)]));

        TextImage text = linked.Predict(new BootState { Slide = Slide }, TextMechanism.Relocation);

        Assert.Equal(2, new KaslrRelocations().Count(linked.Kernel));
        Assert.True(text.TryGet(linked.Symbol("wide") + -8, 8, out ReadOnlySpan<byte> moved));
        Assert.Equal(linked.Symbol("there") + Slide, (VirtualAddress)BinaryPrimitives.ReadUInt64LittleEndian(moved));
    }

    [Fact]
    public void Places_outside_the_text_are_those_of_data()
    {
        LinkedText linked = Link(
            static elf => Lists([At(elf, "wide", -8), 0x1234, -1], [At(elf, "inverse", -4)], [At(elf, "narrow", -4), 1]));

        linked.Check(linked.Predict(new BootState { Slide = Slide }, TextMechanism.Relocation));
    }

    [Fact]
    public void An_unknown_slide_leaves_the_places_open()
    {
        LinkedText linked = Link(static elf => Lists([At(elf, "wide", -8)], [At(elf, "inverse", -4)], [At(elf, "narrow", -4)]));

        TextImage text = linked.Predict(new BootState { Slide = null }, TextMechanism.Relocation);

        Assert.Equal(16, Enumerable.Range(0, text.Sections[0].Length).Count(text.Sections[0].IsOpen));
    }

    [Theory]
    [InlineData(new byte[] { 1, 2, 3, 4, 5, 6, 7, 8 })]
    [InlineData(new byte[] { 0, 0, 0, 0, 5, 6, 7, 8, 9 })]
    [InlineData(new byte[] { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 })]
    [InlineData(new byte[] { 0, 0, 0, 0, 5, 6, 7, 8 })]
    public void Damaged_relocations_are_refused(byte[] behind)
    {
        LinkedText linked = Link(_ => behind);

        Assert.False(TextPredictor.TryPredict(
            linked.Kernel, new BootState { Slide = Slide }, out TextImage? text, out IReadOnlyList<PatchDiagnostic> findings));
        Assert.Null(text);
        Assert.Equal(KernelDiagnosticCodes.RelocationsBad, findings[0].Code);

        // A kernel that was not moved does not need them.
        Assert.True(TextPredictor.TryPredict(linked.Kernel, new BootState(), out _, out _));
    }

    private static LinkedText Link(Func<ElfImage, byte[]> relocations) =>
        LinkedText.Moved(Code, Slide, relocations, TextRules.Linux61, (".percpu", 0));

    private static int At(ElfImage elf, string symbol, int offset)
    {
        Assert.True(elf.TryReadSymbols(out ElfSymbolTable? table, out _));
        for (int i = 1; i < table.Count; i++)
        {
            if (System.Text.Encoding.ASCII.GetString(table.GetNameUtf8(i)) == symbol)
            {
                return unchecked((int)table[i].Value.Value) + offset;
            }
        }

        throw new ArgumentException(symbol, nameof(symbol));
    }

    private static byte[] Lists(int[] wide, int[]? inverse, int[] narrow)
    {
        int[] words = inverse is null ? [0, .. wide, 0, .. narrow] : [0, .. wide, 0, .. inverse, 0, .. narrow];
        return [.. words.SelectMany(BitConverter.GetBytes)];
    }
}
