using PvPatch.Linux.Files;
using PvPatch.Linux.Modules;
using PvPatch.Linux.Tests.Kernel;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Modules;

/// <summary>Where the sections of a module come to lie, and placements that cannot be.</summary>
public sealed class ModulePlacementTests
{
    private const ulong Text = ModuleSource.Text;

    private static readonly KernelImage s_kernel = SyntheticKernel.Complete().Open();

    [Fact]
    public void Code_lies_around_text_in_file_order_and_the_rest_behind_it_by_area()
    {
        // Sizes 0x10 each, alignment 1; the areas behind the code start at the next page each.
        PlacedModule placed = Place(Module(), ModulePlacement.At(Text));
        Assert.Equal(Text - 0x10, Address(placed, ".text.first"));
        Assert.Equal(Text, Address(placed, ".text"));
        Assert.Equal(Text + 0x10, Address(placed, ".exit.text"));
        Assert.Equal(Text + 0x1000, Address(placed, ".rodata"));
        Assert.Equal(Text + 0x1010, Address(placed, ".rodata.more"));
        Assert.Equal(Text + 0x2000, Address(placed, ".data"));
        Assert.Equal(Text + 0x3000, Address(placed, ".init.text"));
        Assert.Equal(Text + 0x4000, Address(placed, ".init.rodata"));
    }

    [Fact]
    public void What_is_not_named_lies_behind_all_that_is()
    {
        PlacedModule placed = Place(
            Module(), new ModulePlacement { Text = 1, Sections = Named((".text", Text), (".data", Text + 0x5000)) });
        Assert.Equal(Text - 0x10, Address(placed, ".text.first"));
        Assert.Equal(Text + 0x5000, Address(placed, ".data"));
        Assert.Equal(Text + 0x6000, Address(placed, ".rodata"));
        Assert.Equal(Text + 0x7000, Address(placed, ".init.text"));
    }

    [Fact]
    public void Text_need_not_be_said_where_all_code_is_named()
    {
        PlacedModule placed = Place(Module(),
            new ModulePlacement { Sections = Named((".text", Text), (".text.first", Text + 0x100), (".exit.text", Text + 0x200)) });
        Assert.Equal(Text + 0x1000, Address(placed, ".rodata"));
    }

    [Theory]
    [InlineData(".modinfo")]
    [InlineData("__versions")]
    [InlineData(".data..percpu")]
    [InlineData(".comment")]
    public void What_the_kernel_does_not_load_has_no_address_even_where_one_is_said(string name)
    {
        TestElf module = Module().Data(".modinfo", 0, 1, 2).Data("__versions", 0, 1, 2).Data(".data..percpu", 0, 1, 2)
            .Add(".comment", ElfSectionType.ProgramBits, ElfSectionAttributes.None, 0, [1]);
        PlacedModule placed = Place(module, new ModulePlacement { Text = Text, Sections = Named((name, Text)) });
        Assert.True(placed.Elf.TryGetSection(name, out ElfSection? section));
        Assert.False(section.IsAllocated);
        Assert.True(section.Address.IsZero);
    }

    [Fact]
    public void Sections_lie_at_multiples_of_their_alignment()
    {
        byte[] file = Module().Symbols().Build();
        ElfImage elf = ElfImage.Read(file);
        file = Align(Align(file, elf, ".exit.text", 64), elf, ".data", 0x10000);
        Assert.True(ModuleSource.Open(file)
            .TryPlace(s_kernel, ModulePlacement.At(Text + 0x10), out PlacedModule? placed, out PatchDiagnostic? error), error?.ToString());

        // As in the kernel: offsets are aligned, and the start with them as it is that of a page.
        Assert.Equal(Text + 0x40, Address(placed, ".exit.text"));
        Assert.Equal(0u, Address(placed, ".data") % 0x10000);
    }

    [Theory]
    [InlineData(3)]
    [InlineData(1ul << 31)]
    [InlineData(ulong.MaxValue)]
    public void An_alignment_that_cannot_be_is_refused(ulong alignment)
    {
        byte[] file = Module().Symbols().Build();
        ElfImage elf = ElfImage.Read(file);
        AssertRefused(
            Align(file, elf, ".text", alignment), ModulePlacement.At(Text), KernelDiagnosticCodes.ModuleBadPlacement, "alignment");
        AssertRefused(
            Align(file, elf, ".data", alignment), ModulePlacement.At(Text), KernelDiagnosticCodes.ModuleBadPlacement, "alignment");
    }

    [Theory]
    [InlineData(0)]
    [InlineData(8)]
    [InlineData(0xfffffffffffffffa)]
    [InlineData(0xffffffffffffffe8)]
    public void An_address_at_the_ends_of_the_address_space_is_refused(ulong text) =>
        AssertRefused(Module().Symbols().Build(), ModulePlacement.At(text), KernelDiagnosticCodes.ModuleBadPlacement, "");

    [Fact]
    public void A_missing_address_is_asked_for()
    {
        PatchDiagnostic error = AssertRefused(Module().Symbols().Build(), new ModulePlacement { Sections = Named((".data", Text)) },
            KernelDiagnosticCodes.ModuleBadPlacement, "not known");
        Assert.Contains("/sys/module/", error.Expected, StringComparison.Ordinal);
    }

    [Fact]
    public void A_name_no_section_has_is_refused() =>
        AssertRefused(Module().Symbols().Build(), new ModulePlacement { Text = Text, Sections = Named((".texst", Text)) },
            KernelDiagnosticCodes.ModuleSectionUnknown, ".texst");

    [Theory]
    [InlineData(Text)]
    [InlineData(Text - 0xf)]
    [InlineData(Text + 0xf)]
    public void Sections_that_would_share_addresses_are_refused(ulong data)
    {
        AssertRefused(Module().Symbols().Build(), new ModulePlacement
        {
            Text = Text,
            Sections = Named((".data", data),
            (".exit.text", Text + 0x100), (".text.first", Text + 0x200))
        }, KernelDiagnosticCodes.ModuleBadPlacement, "share");
        Place(Module(), new ModulePlacement { Text = Text, Sections = Named((".data", Text + 0x10), (".exit.text", Text + 0x100)) });
    }

    [Theory]
    [InlineData(SyntheticKernel.Text)]
    [InlineData(SyntheticKernel.Text - 0x10)]
    [InlineData(SyntheticKernel.Data)]
    public void A_module_over_its_kernel_is_refused(ulong text) =>
        AssertRefused(Module().Symbols().Build(), ModulePlacement.At(text), KernelDiagnosticCodes.ModuleBadPlacement, "the kernel's");

    [Fact]
    public void A_section_without_bytes_in_the_file_takes_its_room()
    {
        PlacedModule placed = Place(Module().NoBits(".bss", 0, 0x10).NoBits(".bss.more", 0, 0x10), ModulePlacement.At(Text));
        Assert.Equal(Text + 0x1020, Address(placed, ".bss"));
        AssertRefused(Module().NoBits(".bss", 0, 1ul << 63).Symbols().Build(), ModulePlacement.At(Text),
            KernelDiagnosticCodes.ModuleBadPlacement, "beyond");
    }

    private static TestElf Module() => new TestElf(64, ElfFileType.Relocatable)
        .Code(".init.text", 0, new byte[0x10])
        .Code(".text.first", 0, new byte[0x10])
        .Data(".rodata", 0, new byte[0x10])
        .Code(".text", 0, new byte[0x10])
        .Data(".init.rodata", 0, new byte[0x10])
        .Add(".data", ElfSectionType.ProgramBits, ElfSectionAttributes.Alloc | ElfSectionAttributes.Write, 0x777, new byte[0x10])
        .Code(".exit.text", 0, new byte[0x10])
        .Data(".rodata.more", 0, new byte[0x10]);

    private static PlacedModule Place(TestElf module, ModulePlacement placement)
    {
        Assert.True(ModuleSource.Open(module.Symbols().Build())
            .TryPlace(s_kernel, placement, out PlacedModule? placed, out PatchDiagnostic? error), error?.ToString());
        return placed;
    }

    private static PatchDiagnostic AssertRefused(byte[] module, ModulePlacement placement, string code, string message)
    {
        Assert.False(ModuleSource.Open(module).TryPlace(s_kernel, placement, out PlacedModule? placed, out PatchDiagnostic? error));
        Assert.Null(placed);
        Assert.Equal(code, error.Code);
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
        return error;
    }

    // sh_addralign is at 48 of a section header of 64 bytes; e_shoff at 40 of the file.
    private static byte[] Align(byte[] file, ElfImage elf, string section, ulong alignment)
    {
        Assert.True(elf.TryGetSection(section, out ElfSection? found));
        return file.With64((int)BitConverter.ToInt64(file, 40) + (found.Index * 64) + 48, alignment);
    }

    private static ulong Address(PlacedModule placed, string section)
    {
        Assert.True(placed.Elf.TryGetSection(section, out ElfSection? found), section);
        return found.Address.Value;
    }

    private static Dictionary<string, VirtualAddress> Named(params (string Name, ulong Address)[] sections) =>
        sections.ToDictionary(static s => s.Name, static s => new VirtualAddress(s.Address));
}
