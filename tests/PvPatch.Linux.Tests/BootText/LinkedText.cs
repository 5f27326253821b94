using System.Text;
using PvPatch.Linux.BootText;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Kernel;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.BootText;

/// <summary>
/// A kernel with code of a test in it, assembled as the compiler leaves it and, with <c>PATCHED</c> set, as it stands after boot. Records
/// and bytes are the assembler's. The macros put a site in one of two forms, and its record.
/// </summary>
internal sealed class LinkedText
{
    /// <summary>The number of words of features in its type information.</summary>
    public const int FeatureWordCount = 24;

    /// <summary>Where they are in struct cpuinfo_x86.</summary>
    public const int CapabilityOffset = 16;

    private const string Macros = """
        .macro site original, patched, table
        771: .if PATCHED
        \patched
        .else
        \original
        .endif
        .pushsection \table, "a"
        .long 771b - .
        .popsection
        .endm

        .macro label original, patched, target, key, inverted
        771: .if PATCHED
        \patched
        .else
        \original
        .endif
        .pushsection __jump_table, "a"
        .balign 8
        .long 771b - .
        .long \target - .
        .quad \key + \inverted - .
        .popsection
        .endm

        .macro scall original, patched, key, flags
        771: .if PATCHED
        \patched
        .else
        \original
        .endif
        .pushsection .static_call_sites, "a"
        .balign 4
        .long 771b - .
        .long \key + \flags - .
        .popsection
        .endm

        .macro trampoline name, original, patched
        __SCT__\name:
        .if PATCHED
        \patched
        .else
        \original
        .endif
        ud1 %esp, %ecx
        .endm

        .macro return0
        ret; int3; int3; int3; int3
        .endm

        """;

    // What every kernel has to have: a paravirt site, the word it calls through, and a table of slots.
    private const string Rest = """

        .text
        paravirt_site: call *pv_ops + 8*0(%rip)
        .pushsection .parainstructions, "a"
        .balign 8
        .quad paravirt_site
        .byte 0, 6
        .short 0x1ff
        .balign 8
        .popsection
        empty: ret
        other: ret

        .data
        .balign 8
        pv_ops:
        .quad other, empty, empty, other
        .quad other, other, other, other
        .quad other, other, other, other, empty, empty, empty, empty
        .quad other, empty, empty, 0
        .quad other, other, other

        """;

    // A kernel of this time has alternatives; where the code has none, one that never changes anything.
    private const string Alternative = """
        .text
        alternative_site: nop
        .section .altinstructions, "a"
        .long alternative_site - ., alternative_site - .
        .short 0
        .byte 1, 0

        """;

    private LinkedText(ElfImage original, ElfImage patched, KernelImage image, TextRules rules)
    {
        Original = original;
        Patched = patched;
        Kernel = TextKernel.Of(image, rules);
    }

    public ElfImage Original { get; }

    public ElfImage Patched { get; }

    public TextKernel Kernel { get; }

    public static LinkedText Of(string code, TextRules rules, params (string Section, ulong Address)[] places)
    {
        ElfImage original = ElfImage.Read(Link(code, 0, 0, places));
        return new LinkedText(original, ElfImage.Read(Link(code, 1, 0, places)), Open(original), rules);
    }

    /// <summary>The same with tables that a test has damaged.</summary>
    public static LinkedText Of(byte[] file, TextRules rules)
    {
        ElfImage image = ElfImage.Read(file);
        return new LinkedText(image, image, Open(image), rules);
    }

    /// <summary>
    /// A kernel with KASLR relocations behind it; its patched form is the same code, linked to other addresses. Sections at 0 stay there.
    /// </summary>
    /// <param name="code">The code.</param>
    /// <param name="slide">Number added to addresses.</param>
    /// <param name="relocations">Makes the relocations of the kernel that was linked.</param>
    /// <param name="rules">The rules.</param>
    /// <param name="places">Addresses of further sections.</param>
    public static LinkedText Moved(
        string code, long slide, Func<ElfImage, byte[]> relocations, TextRules rules, params (string Section, ulong Address)[] places)
    {
        byte[] file = Link(code, 0, 0, places);
        byte[] whole = [.. file, .. relocations(ElfImage.Read(file))];
        ElfImage original = ElfImage.Read(whole);
        return new LinkedText(original, ElfImage.Read(Link(code, 0, slide, places)), Open(original), rules);
    }

    /// <summary>The patched form of code, linked to where it runs.</summary>
    public static ElfImage Running(string code, long slide, params (string Section, ulong Address)[] places) =>
        ElfImage.Read(Link(code, 1, slide, places));

    private static KernelImage Open(ElfImage elf)
    {
        Assert.True(KernelImage.TryOpen(elf, out KernelImage? image, out PatchDiagnostic? error), error?.ToString());
        return image;
    }

    /// <summary>The bytes of the file that <see cref="Of(string, TextRules, ValueTuple{string, ulong}[])"/> reads.</summary>
    public static byte[] FileOf(string code, params (string Section, ulong Address)[] places) => Link(code, 0, 0, places);

    public VirtualAddress Symbol(string name)
    {
        VirtualAddress? address = Kernel.Symbol(name);
        Assert.True(address is not null, name);
        return address.Value;
    }

    /// <summary>Predicts with some mechanisms; there must be no error.</summary>
    public TextImage Predict(BootState state, params TextMechanism[] only)
    {
        bool predicted = TextPredictor.TryPredict(
            Kernel, state, out TextImage? text, out IReadOnlyList<PatchDiagnostic> findings, only.ToHashSet());
        Assert.True(predicted, string.Join("\n", findings));
        return text!;
    }

    /// <summary>Every executable section is, byte for byte, what the assembler makes of the patched form.</summary>
    public void Check(TextImage text)
    {
        Assert.NotEmpty(text.Sections);
        foreach (TextSection section in text.Sections)
        {
            Assert.True(Patched.TryGetSection(section.Name, out ElfSection? wanted), section.Name);
            Assert.Equal(Convert.ToHexString(Patched.GetBytes(wanted).Span), Convert.ToHexString(section.Bytes));
        }

        Assert.Contains(text.Sections, static s => !s.Bytes.SequenceEqual(s.Original));
    }

    private static byte[] Link(string code, int patched, long slide, (string Section, ulong Address)[] places)
    {
        var source = new StringBuilder($".set PATCHED, {patched}\n").Append(Macros).Append(code).Append(Rest);
        source.Append(code.Contains(".altinstructions", StringComparison.Ordinal) ? "" : Alternative);
        source.Append(".section .BTF, \"a\"\n.byte ").AppendJoin(", ", SyntheticOps.Btf(more: AddProcessor)).Append('\n');
        (string Section, ulong Address)[] all =
        [
            (".text", SyntheticKernel.Text),
            (".data", SyntheticKernel.Data),
            (".BTF", 0xffffffff82b00000),
            (".parainstructions", SyntheticKernel.SiteTableAddress),
            (".altinstructions", SyntheticKernel.AlternativesAddress),
            .. places.Where(static p => p.Section != ".altinstructions"),
        ];
        return Tools.AssembleAndLink(
            source.ToString(), 64, [.. all.Select(p => (p.Section, p.Address == 0 ? 0 : p.Address + (ulong)slide))]);
    }

    /// <summary>struct cpuinfo_x86 with bit fields, and the words of its features in a union without a name.</summary>
    private static void AddProcessor(TestBtf btf)
    {
        int word = btf.Int("unsigned int", 4);
        int words = btf.Array(word, word, FeatureWordCount);
        int union = btf.Union("", 4 * FeatureWordCount, new TestBtf.Member("x86_capability", words, 0));
        btf.StructWithBitFields("cpuinfo_x86", CapabilityOffset + (4 * FeatureWordCount),
            new TestBtf.Member("initialized", word, 0x01000000), new TestBtf.Member("", union, CapabilityOffset * 8));
    }
}
