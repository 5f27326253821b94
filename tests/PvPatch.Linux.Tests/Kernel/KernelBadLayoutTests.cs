using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Kernel;

/// <summary>Type information from which the order of the ops table cannot be had.</summary>
public sealed class KernelBadLayoutTests
{
    [Fact]
    public void Type_information_must_be_there()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Without.Add(".BTF");
        KernelErrors.Open(kernel, KernelDiagnosticCodes.LayoutUnknown);
    }

    [Fact]
    public void Type_information_must_have_the_template()
    {
        var btf = new TestBtf();
        btf.Struct("paravirt_patch_site", 8, new TestBtf.Member("instr", btf.Pointer(0), 0));
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Btf = btf.Build();
        KernelErrors.Open(kernel, KernelDiagnosticCodes.BtfStructMissing);
    }

    [Fact]
    public void Damaged_type_information_is_reported_at_its_place_in_the_file()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Btf[0] ^= 1;
        ElfImage elf = kernel.Elf();
        Assert.True(elf.TryGetSection(".BTF", out ElfSection? section));
        Assert.Equal(section.FileOffset, KernelErrors.Open(kernel, KernelDiagnosticCodes.BtfBadHeader).FileOffset);
    }

    public static TheoryData<string, int, (string, int)[]> Templates => new()
    {
        { "a hole", 24, [("a", 0), ("b", 16)] },
        { "a hole at the end", 24, [("a", 0), ("b", 8)] },
        { "a hole at the start", 16, [("b", 8)] },
        { "two members in one place", 16, [("a", 0), ("b", 0)] },
        { "members out of order", 16, [("b", 8), ("a", 0)] },
        { "no members", 0, [] },
        { "a member without a name", 16, [("a", 0), ("", 8)] },
        { "a name that ends in a dot", 8, [("irq.", 0)] },
        { "the parts of a table apart from each other", 24, [("irq.a", 0), ("mmu.b", 8), ("irq.c", 16)] },
        { "too many members", 257 * 8, [.. Enumerable.Range(0, 257).Select(i => ($"s{i}", 8 * i))] },
    };

    [Theory]
    [MemberData(nameof(Templates))]
    public void The_template_must_be_a_row_of_words_with_names(string what, int size, (string, int)[] members)
    {
        Assert.NotNull(what);
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Btf = SyntheticOps.FlatBtf(size, members);
        KernelErrors.Open(kernel, KernelDiagnosticCodes.LayoutUnknown);
    }

    [Fact]
    public void Two_slots_of_one_name_are_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Btf = SyntheticOps.FlatBtf(16, ("irq.halt", 0), ("irq.halt", 8));
        KernelErrors.Open(kernel, DiagnosticCodes.DuplicateName);
    }
}
