using PvPatch.Linux.Files;
using PvPatch.Linux.Modules;
using PvPatch.Linux.Tests.Kernel;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Modules;

/// <summary>Files that are no modules, modules of other kernels, and modules whose relocations lie.</summary>
public sealed class ModuleBadInputTests
{
    private static readonly ModuleSource s_source = new(64, directCalls: false);
    private static readonly ModuleSource s_direct = new(64, directCalls: true);

    [Theory]
    [InlineData(nameof(PayloadCompression.Gzip))]
    [InlineData(nameof(PayloadCompression.Xz))]
    [InlineData(nameof(PayloadCompression.Zstd))]
    public void A_packed_module_is_unpacked(string packing)
    {
        PayloadCompression compression = Enum.Parse<PayloadCompression>(packing);
        byte[] plain = s_source.Assemble();
        using var folder = new TestFolder();
        string path = folder.File("m.ko.packed");
        File.WriteAllBytes(path, Compressors.Compress(compression, plain));
        Assert.True(KernelModule.TryOpen(path, out KernelModule? module, out PatchDiagnostic? error), error?.ToString());
        Assert.Equal(plain, module.Elf.File.ToArray());
    }

    [Fact]
    public void A_linked_file_is_no_module()
    {
        byte[] kernel = SyntheticKernel.Complete().Build();
        AssertNotOpened(kernel, KernelDiagnosticCodes.NotAModule, "linked");
        AssertNotOpened(TestBzImage.Build(TestBzImage.Gzip(kernel)), KernelDiagnosticCodes.NotAModule, "bzImage");
        AssertNotOpened("no module at all"u8.ToArray(), KernelDiagnosticCodes.NotAModule, "6e 6f");
    }

    [Fact]
    public void The_file_that_cannot_be_opened_is_named()
    {
        Assert.False(KernelModule.TryOpen("/nonexistent/m.ko", out _, out PatchDiagnostic? error));
        Assert.Equal((KernelDiagnosticCodes.FileUnreadable, "/nonexistent/m.ko"), (error.Code, error.Source));
    }

    [Fact]
    public void What_a_module_says_of_itself_is_read()
    {
        byte[] info = "license=GPL\0name=good\0vermagic=6.1.0-18-amd64 SMP preempt \0depends=\0"u8.ToArray();
        KernelModule module = ModuleSource.Open(Minimal().Data(".modinfo", 0, info).Symbols().Build());
        Assert.Equal(("good", "6.1.0-18-amd64 SMP preempt ", "6.1.0-18-amd64"), (module.Name, module.VersionMagic, module.Release));
        KernelModule silent = ModuleSource.Open(Minimal().Data(".modinfo", 0, "name=\u001b[2J\0vermagic"u8.ToArray()).Symbols().Build());
        Assert.Equal((null, null, null), (silent.Name, silent.VersionMagic, silent.Release));
    }

    [Fact]
    public void A_module_of_another_release_is_warned_of()
    {
        KernelImage kernel = s_direct.Kernel();
        Assert.Empty(Warnings("vermagic=6.12.0-test SMP\0"));
        PatchDiagnostic warning = Assert.Single(Warnings("vermagic=6.1.0-18-amd64 SMP\0"));
        Assert.Equal((KernelDiagnosticCodes.ModuleOtherRelease, DiagnosticSeverity.Warning, "6.12.0-test"),
            (warning.Code, warning.Severity, warning.Expected));

        IReadOnlyList<PatchDiagnostic> Warnings(string info) =>
            Place(kernel, ModuleSource.Open(Minimal().Data(".modinfo", 0, System.Text.Encoding.ASCII.GetBytes(info)).Symbols().Build()))
                .Warnings;
    }

    [Fact]
    public void A_module_of_another_machine_is_refused() =>
        AssertRefused(s_source.Kernel(), new ModuleSource(32, false).Open(), KernelDiagnosticCodes.ModuleWrongMachine, "machine");

    [Fact]
    public void A_module_of_another_era_is_refused()
    {
        AssertRefused(s_source.Kernel(), s_direct.Open(), KernelDiagnosticCodes.ModuleOtherEra, "alternatives");
        AssertRefused(s_direct.Kernel(), s_source.Open(), KernelDiagnosticCodes.ModuleOtherEra, "site table");
    }

    [Fact]
    public void Alternatives_of_another_form_are_refused()
    {
        // Six records of 14 bytes are seven of 12.
        string code = string.Concat(Enumerable.Repeat(
            ".pushsection .altinstructions, \"a\"\n.long start - ., start - .\n.long 0x10110\n.byte 3, 2\n.popsection\n", 6));
        AssertRefused(
            s_source.Kernel(), s_source.Open($".text\nstart: .nops 32\n{code}"), KernelDiagnosticCodes.ModuleOtherEra, "makes no sense");
    }

    [Fact]
    public void A_module_without_symbols_is_refused() =>
        AssertRefused(
            SyntheticKernel.Complete().Open(), ModuleSource.Open(Minimal().Build()), KernelDiagnosticCodes.ElfNoSymbols, "no symbol table");

    [Fact]
    public void What_no_site_needs_may_stay_unresolved()
    {
        PlacedModule placed = Place(s_source.Kernel(),
            s_source.Open(s_source.Code + ".text\ncall of_another_module\n.reloc ., R_X86_64_GOT32, helper\nnop\nnop\nnop\nnop\n"));
        Assert.Equal(2, placed.UnresolvedRelocations);
        Assert.Equal(8, placed.Sites.Count);
    }

    [Theory]
    [InlineData(false, "site 8, \"nop\"", "pv_ops", "nothing_at_all", "a site of the module refers to nothing_at_all, which neither")]
    [InlineData(true, "site 8, \"nop\"", "pv_ops", "nothing_at_all", "a site of the module refers to nothing_at_all, which neither")]
    [InlineData(true, "site 8, \"nop\"", "BUG_func", "nothing_at_all", "the replacement of a site of the module refers to nothing_at_all")]
    [InlineData(false, "site 5, \"nop\"\nalternative NOT_XENPV, \"call nothing_at_all\"", "x", "x",
        "the replacement of a site of the module refers to nothing_at_all")]
    [InlineData(true, "site 5, \"nop\"\nalternative NOT_XENPV, \"call nothing_at_all\"", "x", "x",
        "the replacement of a site of the module refers to nothing_at_all")]
    [InlineData(false, ".section .parainstructions, \"a\"\n.quad nothing_at_all, 0", "x", "x",
        "the site table of the module refers to nothing_at_all")]
    [InlineData(false, ".section .altinstructions, \"a\"\n.long nothing_at_all - ., 0, 0", "x", "x",
        "the table of alternatives of the module refers to nothing_at_all")]
    [InlineData(false, ".section .parainstructions, \"a\"\n.quad data, 0\n.section .data..percpu, \"aw\"\ndata: .quad 0", "x", "x",
        "refers to the section .data..percpu")]
    public void What_a_site_needs_must_be_known(bool directCalls, string code, string name, string instead, string message)
    {
        ModuleSource source = directCalls ? s_direct : s_source;
        byte[] file = source.Assemble($".text\nret\n{code}\n");
        AssertRefused(source.Kernel(), ModuleSource.Open(Rename(file, name, instead)), KernelDiagnosticCodes.ModuleUnresolved, message);
    }

    [Theory]
    [InlineData(0x400000)]
    [InlineData(0x7fffffff00000000)]
    public void A_module_outside_the_kernels_half_of_the_address_space_is_refused(ulong text)
    {
        // The first would be in reach all the same: displacements wrap around.
        Assert.False(s_source.Open().TryPlace(s_source.Kernel(), ModulePlacement.At(text), out _, out PatchDiagnostic? error));
        Assert.Equal(KernelDiagnosticCodes.ModuleBadPlacement, error.Code);
        Assert.Contains("other half", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0xffffffff00000000)]
    [InlineData(0xffff888000000000)]
    public void A_module_out_of_reach_of_its_kernel_is_refused(ulong text)
    {
        Assert.False(s_source.Open().TryPlace(s_source.Kernel(), ModulePlacement.At(text), out _, out PatchDiagnostic? error));
        Assert.Equal(KernelDiagnosticCodes.ModuleUnresolved, error.Code);
        Assert.Contains("pv_ops, which is out of reach", error.Message, StringComparison.Ordinal);
        Assert.Contains("2 GiB", error.Help, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0, 0x7fffffffffffffff)]
    [InlineData(0, 0xfffffffffffffffc)]
    [InlineData(8, 0xffffffff00000002)]
    public void A_relocation_of_a_place_or_symbol_that_does_not_exist_is_refused(int field, ulong value)
    {
        byte[] file = s_source.Assemble();
        ElfSection table = Section(file, ".rela.text");
        PatchDiagnostic error = AssertRefused(s_source.Kernel(), ModuleSource.Open(file.With64((int)table.FileOffset + 24 + field, value)),
            KernelDiagnosticCodes.ModuleBadRelocations, "does not exist");
        Assert.Equal(table.FileOffset + 24, error.FileOffset);
    }

    [Theory]
    [InlineData(4, 9u, "form")] // sh_type: relocations without addends
    [InlineData(40, 1u, "symbol table")] // sh_link
    [InlineData(56, 8u, "form")] // sh_entsize
    [InlineData(32, 25u, "form")] // sh_size
    public void A_table_of_relocations_of_another_form_is_refused(int field, uint value, string message)
    {
        byte[] file = s_source.Assemble();
        int header = (int)BitConverter.ToInt64(file, 40) + (Section(file, ".rela.text").Index * 64);
        AssertRefused(
            s_source.Kernel(), ModuleSource.Open(file.With32(header + field, value)), KernelDiagnosticCodes.ModuleBadRelocations, message);
    }

    [Fact]
    public void Many_tables_over_the_same_bytes_are_refused_before_they_take_memory()
    {
        byte[] module = s_source.Assemble();
        byte[] many = new byte[module.Length + (3000 * 64)];
        module.CopyTo(many, 0);
        int count = BitConverter.ToUInt16(module, 60);
        int headers = (int)BitConverter.ToInt64(module, 40);
        int table = headers + (Section(module, ".rela.text").Index * 64);
        module.AsSpan(headers, count * 64).CopyTo(many.AsSpan(module.Length));
        for (int i = count; i < 2900; i++)
        {
            module.AsSpan(table, 64).CopyTo(many.AsSpan(module.Length + (i * 64)));
        }

        AssertRefused(s_source.Kernel(), ModuleSource.Open(many.With64(40, (ulong)module.Length).With16(60, 2900)),
            KernelDiagnosticCodes.ModuleBadRelocations, "share bytes");
    }

    [Fact]
    public void A_site_table_out_of_its_code_is_refused()
    {
        KernelModule module = s_source.Open(
            ".text\nret\n.section .parainstructions, \"a\"\n.quad data\n.byte 5, 6, 0, 0, 0, 0, 0, 0\n.data\ndata: .quad 0\n");
        AssertRefused(s_source.Kernel(), module, DiagnosticCodes.SiteOutsideImage, "outside every section of code");
    }

    [Fact]
    public void Another_function_for_missing_operations_than_the_kernels_is_refused()
    {
        byte[] file = Rename(s_direct.Assemble(".text\nret\nsite 8, \"nop\"\nsite 8, \"nop\"\n"), "BUG_func", "helper");
        AssertRefused(s_direct.Kernel(), ModuleSource.Open(file), KernelDiagnosticCodes.AlternativeUnknown, "another replacement");
    }

    private static TestElf Minimal() => new TestElf(64, ElfFileType.Relocatable).Code(".text", 0, 0xc3);

    /// <summary>Gives a symbol another name that stands elsewhere in the file's names.</summary>
    private static byte[] Rename(byte[] file, string from, string to)
    {
        if (from == to)
        {
            return file;
        }

        // objcopy writes the whole file anew, with the new name among its names.
        using var folder = new TestFolder();
        string path = folder.File("module.o");
        File.WriteAllBytes(path, file);
        Tools.Pipe([], "objcopy", $"--redefine-sym={from}={to}", path);
        return File.ReadAllBytes(path);
    }

    private static ElfSection Section(byte[] file, string name)
    {
        Assert.True(ElfImage.Read(file).TryGetSection(name, out ElfSection? section), name);
        return section;
    }

    private static PlacedModule Place(KernelImage kernel, KernelModule module)
    {
        Assert.True(module.TryPlace(kernel, ModulePlacement.At(ModuleSource.Text), out PlacedModule? placed, out PatchDiagnostic? error),
            error?.ToString());
        return placed;
    }

    private static PatchDiagnostic AssertRefused(KernelImage kernel, KernelModule module, string code, string message)
    {
        Assert.False(module.TryPlace(kernel, ModulePlacement.At(ModuleSource.Text), out PlacedModule? placed, out PatchDiagnostic? error));
        Assert.Null(placed);
        Assert.Equal(code, error.Code);
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
        return error;
    }

    private static void AssertNotOpened(byte[] file, string code, string found)
    {
        Assert.False(KernelModule.TryOpen(file, out KernelModule? module, out PatchDiagnostic? error));
        Assert.Null(module);
        Assert.Equal(code, error.Code);
        Assert.Contains(found, error.Found, StringComparison.Ordinal);
    }
}
