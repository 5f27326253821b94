using System.Buffers.Binary;
using PvPatch.Linux.Elf;
using PvPatch.Linux.Kernel;
using PvPatch.Linux.Tests.Support;
using PvPatch.Sites.Formats;

namespace PvPatch.Linux.Tests.Kernel;

/// <summary>Images with one thing wrong: each gives a diagnostic of a stable code, and the file stays as it was.</summary>
public sealed class KernelBadInputTests
{
    [Fact]
    public void The_unbroken_kernel_opens() => Assert.Equal(SyntheticOps.Names.Count + 4, SyntheticKernel.Complete().Open().Sites.Count);

    [Fact]
    public void A_file_with_neither_sites_nor_alternatives_is_no_kernel()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Without.UnionWith([".parainstructions", ".altinstructions"]);
        PatchDiagnostic error = OpenError(kernel, KernelDiagnosticCodes.NoSiteTable);
        Assert.Equal("neither .parainstructions nor .altinstructions", error.Found);
    }

    [Fact]
    public void A_kernel_without_site_table_is_told_how_many_alternatives_it_has_instead()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Without.Add(".parainstructions");
        PatchDiagnostic error = OpenError(kernel, KernelDiagnosticCodes.NoSiteTable);
        Assert.Equal(".altinstructions with 3 records, 0 of them direct calls of paravirt slots", error.Found);
        Assert.Contains("CONFIG_PARAVIRT", error.Help, StringComparison.Ordinal);
    }

    [Fact]
    public void A_kernel_of_6_8_is_told_that_its_sites_are_among_the_alternatives()
    {
        // Records of 14 bytes: ALT_CALL_ALWAYS (0x00020075), then !XENPV (0x00010110) for the same site.
        SyntheticKernel kernel = SyntheticKernel.Complete();
        ulong site = SyntheticKernel.Text + 0x1000;
        kernel.AlternativesTable = [.. Alternative14(0, site, 0x00020075, 6, 5), .. Alternative14(1, site, 0x00010110, 6, 1)];
        kernel.AddAlternative(site, SyntheticKernel.XenPv, true, 0xe8, 0, 0, 0, 0); // room for the replacement
        kernel.Without.Add(".parainstructions");
        PatchDiagnostic error = OpenError(kernel, KernelDiagnosticCodes.NoSiteTable);
        Assert.Equal(".altinstructions with 2 records, 1 of them direct calls of paravirt slots", error.Found);
        Assert.Contains("6.8", error.Help, StringComparison.Ordinal);
    }

    [Fact]
    public void An_empty_site_table_is_no_site_table()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.SiteTable = [];
        OpenError(kernel, KernelDiagnosticCodes.NoSiteTable);
    }

    [Fact]
    public void A_direct_call_of_6_8_at_a_site_of_the_table_is_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.AddAlternative(SyntheticKernel.Text + 0x1000, SyntheticKernel.XenPv, true, 0xe8, 0, 0, 0, 0);
        kernel.AlternativesTable = Alternative14(0, SyntheticKernel.Text + 0x1000, 0x00030110, 6, 5);
        Assert.Equal(KernelDiagnosticCodes.AlternativeUnknown, KernelPlanTests.PlanError(kernel).Code);
    }

    [Fact]
    public void A_kernel_with_a_patch_function_is_of_an_era_not_known_yet()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        var btf = new TestBtf();
        int pointer = btf.Pointer(0);
        int init = btf.Struct("pv_init_ops", 8, new TestBtf.Member("patch", pointer, 0));
        int irq = btf.Struct("pv_irq_ops", 8, new TestBtf.Member("irq_disable", pointer, 0));
        btf.Struct("paravirt_patch_template", 16, new TestBtf.Member("init", init, 0), new TestBtf.Member("irq", irq, 64));
        kernel.Btf = btf.Build();
        PatchDiagnostic error = OpenError(kernel, KernelDiagnosticCodes.EraUnknown);
        Assert.Contains("64-bit", error.Found, StringComparison.Ordinal);
    }

    [Fact]
    public void A_32_bit_kernel_is_of_an_era_not_known_yet()
    {
        byte[] file = new TestElf(32)
            .Code(".text", 0xc1000000, 0xff, 0x15, 0, 0, 0, 0xc2)
            .Data(".parainstructions", 0xc3000000, 0, 0, 0, 0xc1, 0, 6, 0xf, 0)
            .Data(".BTF", 0xc3100000, SyntheticOps.Btf(word: 4))
            .Build();
        PatchDiagnostic error = OpenError(file, KernelDiagnosticCodes.EraUnknown);
        Assert.Contains("32-bit", error.Found, StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_that_is_not_linked_has_no_addresses_to_patch_at()
    {
        byte[] file = SyntheticKernel.Complete().Build().With16(16, (ushort)ElfFileType.Relocatable);
        OpenError(file, KernelDiagnosticCodes.ElfNotSupported);
    }

    [Fact]
    public void Thread_local_sections_have_no_addresses_of_their_own_and_hold_no_sites()
    {
        // Such a section may have the addresses of another one. Here .init.text (index 5) says it is one, at the address of .text.
        SyntheticKernel kernel = SyntheticKernel.Complete();
        byte[] file = kernel.Build();
        int header = (int)BinaryPrimitives.ReadInt64LittleEndian(file.AsSpan(40)) + (5 * 64);
        Assert.Equal(SyntheticKernel.InitText, BinaryPrimitives.ReadUInt64LittleEndian(file.AsSpan(header + 16)));
        OpenError(file.With64(header + 8, 0x406).With64(header + 16, SyntheticKernel.Text), DiagnosticCodes.SiteOutsideImage);
    }

    [Fact]
    public void Type_information_must_be_there()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Without.Add(".BTF");
        OpenError(kernel, KernelDiagnosticCodes.LayoutUnknown);
    }

    [Fact]
    public void Type_information_must_have_the_template()
    {
        var btf = new TestBtf();
        btf.Struct("paravirt_patch_site", 8, new TestBtf.Member("instr", btf.Pointer(0), 0));
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Btf = btf.Build();
        OpenError(kernel, KernelDiagnosticCodes.BtfStructMissing);
    }

    [Fact]
    public void Damaged_type_information_is_reported_at_its_place_in_the_file()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Btf[0] ^= 1;
        ElfImage elf = kernel.Elf();
        Assert.True(elf.TryGetSection(".BTF", out ElfSection? section));
        Assert.Equal(section.FileOffset, OpenError(kernel, KernelDiagnosticCodes.BtfBadHeader).FileOffset);
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
        OpenError(kernel, KernelDiagnosticCodes.LayoutUnknown);
    }

    [Fact]
    public void Two_slots_of_one_name_are_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Btf = SyntheticOps.FlatBtf(16, ("irq.halt", 0), ("irq.halt", 8));
        OpenError(kernel, DiagnosticCodes.DuplicateName);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    [InlineData(15)]
    public void A_site_table_cut_off_is_refused(int bytes)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.SiteTable = kernel.SiteTableBytes()[..^bytes];
        PatchDiagnostic error = OpenError(kernel, DiagnosticCodes.TableStride);
        Assert.NotNull(error.FileOffset);
    }

    [Theory]
    [InlineData(8)]
    [InlineData(4)]
    [InlineData(1)]
    public void Records_of_another_size_name_addresses_outside_the_code(int shift)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.SiteTable = [.. kernel.SiteTableBytes()[shift..], .. new byte[shift]];
        OpenError(kernel, DiagnosticCodes.SiteOutsideImage);
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(1UL)]
    [InlineData(SyntheticKernel.Text - 1)]
    [InlineData(SyntheticKernel.Text + 0x1ffb)]
    [InlineData(SyntheticKernel.OpsTable)]
    [InlineData(SyntheticKernel.Bss)]
    [InlineData(0x7fffffffffffffffUL)]
    [InlineData(0xfffffffffffffffbUL)]
    [InlineData(0xffffffffffffffffUL)]
    public void A_site_outside_the_code_is_reported_with_its_record(ulong address)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Records[3] = kernel.Records[3] with { Address = address };
        PatchDiagnostic error = OpenError(kernel, DiagnosticCodes.SiteOutsideImage);
        Assert.True(kernel.Elf().TryGetSection(".parainstructions", out ElfSection? section));
        Assert.Equal((3, address, section.FileOffset + 48), (error.SiteIndex, error.Address!.Value.Value, error.FileOffset));
    }

    [Fact]
    public void A_site_twice_in_the_table_is_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Records.Add(kernel.Records[0]);
        PatchDiagnostic error = OpenError(kernel, DiagnosticCodes.SiteDuplicate);
        Assert.NotNull(error.FileOffset);
    }

    [Fact]
    public void Sites_that_share_bytes_are_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        ParaInstruction first = kernel.Records[0];
        kernel.Records.Insert(1, first with { Address = first.Address + 5 });
        PatchDiagnostic error = OpenError(kernel, DiagnosticCodes.SiteOverlap);
        Assert.True(kernel.Elf().TryGetSection(".parainstructions", out ElfSection? section));
        Assert.Equal((1, section.FileOffset + 16), (error.SiteIndex, error.FileOffset));
    }

    [Theory]
    [InlineData(0, DiagnosticCodes.SiteZeroLength)]
    [InlineData(255, DiagnosticCodes.SiteTooLong)]
    public void A_site_of_impossible_length_is_refused(byte length, string code)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        ulong address = SyntheticKernel.Text + 0x1800;
        kernel.Records.Add(new ParaInstruction(address, 0, length, 0));
        Assert.Equal(address, OpenError(kernel, code).Address!.Value.Value);
    }

    [Theory]
    [InlineData(23)]
    [InlineData(255)]
    public void A_type_beyond_the_slots_is_refused(byte type)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Records[2] = kernel.Records[2] with { Type = type };
        Assert.Equal(DiagnosticCodes.SiteUnknownSlot, KernelPlanTests.PlanError(kernel).Code);
    }

    [Fact]
    public void A_site_that_calls_through_another_slot_than_its_record_says_is_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        ulong site = kernel.AddSite("irq.irq_disable", through: SyntheticOps.IndexOf("irq.irq_enable"));
        PatchDiagnostic error = KernelPlanTests.PlanError(kernel);
        Assert.Equal((DiagnosticCodes.WrongSlotOperand, site), (error.Code, error.Address!.Value.Value));
        Assert.Contains("irq.irq_enable", error.Found, StringComparison.Ordinal);
    }

    [Fact]
    public void An_image_patched_already_is_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        KernelImage image = kernel.Open();
        KernelPlanTests.Plan(image).Apply(image.Code);
        PatchDiagnostic error = OpenError(image.Elf.File.ToArray(), KernelDiagnosticCodes.OpsTableNotFound);
        Assert.Equal("0 of 27 sites that agree", error.Found);
        Assert.Contains("patched already", error.Help, StringComparison.Ordinal);
    }

    [Fact]
    public void Half_of_the_sites_are_not_most_of_them()
    {
        var kernel = new SyntheticKernel();
        for (int i = 0; i < 6; i++)
        {
            ulong site = kernel.AddSite("irq.halt");
            if (i % 2 == 0)
            {
                kernel.Put(site, 0xe8, 0, 0, 0, 0, 0x90);
            }
        }

        Assert.Equal("3 of 6 sites that agree", OpenError(kernel, KernelDiagnosticCodes.OpsTableNotFound).Found);
    }

    [Fact]
    public void A_single_site_patched_already_is_refused_when_planned()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Put(SyntheticKernel.Text + 0x1000, 0xfa, 0x0f, 0x1f, 0x44, 0, 0);
        PatchDiagnostic error = KernelPlanTests.PlanError(kernel);
        Assert.Equal((DiagnosticCodes.UnknownBytes, "fa 0f 1f 44 00 00"), (error.Code, error.Found));
    }

    [Theory]
    [InlineData(1UL)]
    [InlineData(SyntheticKernel.OpsTable)]
    [InlineData(SyntheticKernel.Bss)]
    [InlineData(SyntheticKernel.Text + 0x2000)]
    [InlineData(0xffffffffffffffffUL)]
    public void An_ops_table_that_holds_anything_but_code_is_refused(ulong word)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Pointers[7] = word;
        PatchDiagnostic error = OpenError(kernel, KernelDiagnosticCodes.OpsTableNotFound);
        Assert.Contains("irq.halt", error.Message, StringComparison.Ordinal);
        Assert.Equal(SyntheticKernel.OpsTable + 56, error.Address!.Value.Value);
    }

    [Theory]
    [InlineData(SyntheticKernel.Bss)]
    [InlineData(SyntheticKernel.OpsTable + 8)]
    [InlineData(SyntheticKernel.Data + 0x10000)]
    public void An_ops_table_without_bytes_in_the_file_is_refused(ulong table)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        foreach (ParaInstruction record in kernel.Records)
        {
            byte[] call = [0xff, 0x15, 0, 0, 0, 0];
            BinaryPrimitives.WriteInt32LittleEndian(call.AsSpan(2), (int)(table + (ulong)(record.Type * 8) - (record.Address.Value + 6)));
            kernel.Put(record.Address.Value, call);
        }

        PatchDiagnostic error = OpenError(kernel, KernelDiagnosticCodes.OpsTableNotFound);
        Assert.Equal(table, error.Address!.Value.Value);
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(SyntheticKernel.Text + 0x210)]
    public void Slots_that_are_empty_by_design_must_hold_one_function(ulong other)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Pointers[SyntheticOps.IndexOf("mmu.release_pmd")] = other;
        PatchDiagnostic error = OpenError(kernel, KernelDiagnosticCodes.OpsTableNotFound);
        Assert.Contains("empty function", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("89 f8 c3")]
    [InlineData("f3 0f 1e fa 90 c3")]
    [InlineData("ff 25 00 00 00 00")]
    [InlineData("e8 00 00 00 00")]
    [InlineData("06")]
    public void The_empty_function_must_be_empty(string code)
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Put(SyntheticKernel.EmptyFunction, Bytes.FromHex(code));
        OpenError(kernel, KernelDiagnosticCodes.OpsTableNotFound);
    }

    [Fact]
    public void A_layout_without_slots_that_are_empty_by_design_is_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Btf = SyntheticOps.FlatBtf(23 * 8, [.. Enumerable.Range(0, 23).Select(i => ($"op.s{i}", 8 * i))]);
        OpenError(kernel, KernelDiagnosticCodes.OpsTableNotFound);
    }

    [Fact]
    public void The_era_needs_its_alternatives()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.Without.Add(".altinstructions");
        OpenError(kernel, KernelDiagnosticCodes.ElfSectionMissing);
    }

    [Fact]
    public void Alternatives_of_no_known_form_are_refused()
    {
        SyntheticKernel kernel = SyntheticKernel.Complete();
        kernel.AlternativesTable = kernel.AlternativesBytes()[..^1];
        OpenError(kernel, KernelDiagnosticCodes.AltFormatUnknown);
    }

    private static PatchDiagnostic OpenError(SyntheticKernel kernel, string code) => OpenError(kernel.Build(), code);

    private static PatchDiagnostic OpenError(byte[] file, string code)
    {
        byte[] before = [.. file];
        Assert.True(ElfImage.TryRead(file, out ElfImage? elf, out PatchDiagnostic? error), error?.ToString());
        Assert.False(KernelImage.TryOpen(elf, out KernelImage? image, out error));
        Assert.Null(image);
        Assert.Equal(before, file);
        Assert.True(error.Code == code, $"{code} was expected, not {error}");
        Assert.Equal(DiagnosticSeverity.Error, error.Severity);
        return error;
    }

    // Distances from the two fields, flags and feature in 32 bits, two lengths; the replacement is the one added last.
    private static byte[] Alternative14(int index, ulong site, uint feature, byte length, byte replacementLength)
    {
        byte[] record = new byte[14];
        ulong at = SyntheticKernel.AlternativesAddress + (ulong)(14 * index);
        BinaryPrimitives.WriteInt32LittleEndian(record, (int)(site - at));
        BinaryPrimitives.WriteInt32LittleEndian(record.AsSpan(4), (int)(SyntheticKernel.ReplacementAddress - (at + 4)));
        BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan(8), feature);
        record[12] = length;
        record[13] = replacementLength;
        return record;
    }
}
