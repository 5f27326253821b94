using System.Buffers.Binary;
using PvPatch.Linux.Files;
using PvPatch.Linux.Objects;
using PvPatch.Linux.Tests.Support;
using PvPatch.Mechanisms;
using PvPatch.Records;
using PvPatch.Tests.Shared;

namespace PvPatch.Linux.Tests.Objects;

/// <summary>Object files that are placed and relocated, linked files, and files that are neither.</summary>
public sealed class ObjectFileTests
{
    private const string Source = """
        pv_call pv_ops, 1
        pv_branch key, 1f
        1: pv_static_call notify, outside
        pv_region native
        nop
        pv_variant xen
        call outside
        pv_end_region
        """;

    private static readonly Dictionary<string, VirtualAddress> s_symbols =
        new() { ["pv_ops"] = new(0x500000), ["outside"] = new(0x600000) };

    [Theory]
    [InlineData(64)]
    [InlineData(32)]
    public void An_object_file_and_what_is_linked_of_it_have_the_same_records(int bitness)
    {
        byte[] relocatable = IncludeFile.Assemble(Source, bitness);
        var options = new ObjectOptions { Symbols = s_symbols };
        Assert.True(ObjectFile.TryOpen(relocatable, out ObjectFile? file, out PatchDiagnostic? error, options), error?.ToString());
        Assert.False(file.IsLinked);
        SiteRecords read = file.ReadRecords();

        // The linker is told the addresses that the object file was given.
        byte[] program = Tools.Link(
            relocatable, bitness, s_symbols.Select(static s => (s.Key, s.Value.Value)), (".text", file.Code.Segments[0].Address.Value),
            ("pvpatch_code", file.Code.Segments[1].Address.Value), (SiteRecords.SectionName, 0x700000),
            (SiteRecords.NamesSectionName, 0x701000));
        Assert.True(ObjectFile.TryOpen(program, out ObjectFile? linked, out error), error?.ToString());
        Assert.True(linked.IsLinked);
        SiteRecords other = linked.ReadRecords();

        Assert.Equal(other.Sites, read.Sites);
        Assert.Equal(other.StaticKeys, read.StaticKeys);
        Assert.Equal(other.StaticCalls, read.StaticCalls);
        Assert.Equal(other.Variants, read.Variants);
        Assert.Equal(other.SlotAddresses(3), read.SlotAddresses(3));
        for (int i = 0; i < 2; i++)
        {
            Assert.Equal(linked.Code.Segments[i].Bytes.ToArray(), file.Code.Segments[i].Bytes.ToArray());
        }

        Assert.Equal(relocatable, IncludeFile.Assemble(Source, bitness)); // the caller's bytes are as they were
    }

    [Theory]
    [InlineData("pv_ops", "a record refers to outside, whose address is not known")]
    [InlineData("outside", "a record refers to pv_ops, whose address is not known")]
    public void A_symbol_without_an_address_is_told(string known, string message)
    {
        byte[] file = IncludeFile.Assemble(Source, 64);
        var options = new ObjectOptions { Symbols = new Dictionary<string, VirtualAddress> { [known] = s_symbols[known] } };
        Assert.True(ObjectFile.TryOpen(file, out ObjectFile? opened, out _, options));
        Assert.False(opened.TryReadRecords(out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Equal((KernelDiagnosticCodes.ObjectUnresolved, message), (Assert.Single(diagnostics).Code, diagnostics[0].Message));
        Assert.InRange(diagnostics[0].FileOffset!.Value, 1, file.Length - 4);
    }

    [Fact]
    public void Code_that_calls_a_symbol_without_an_address_is_told()
    {
        byte[] file = IncludeFile.Assemble("pv_region native\nnop\npv_variant xen\ncall outside\npv_end_region\n", 64);
        Assert.True(ObjectFile.TryOpen(file, out ObjectFile? opened, out _));
        Assert.False(opened.TryReadRecords(out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Equal("the code of a site refers to outside, whose address is not known", Assert.Single(diagnostics).Message);
    }

    [Fact]
    public void A_symbol_out_of_reach_is_told()
    {
        var options = new ObjectOptions
        {
            Symbols = new Dictionary<string, VirtualAddress>(s_symbols) { ["outside"] = new(0x7fff_0000_0000) },
        };
        Assert.True(ObjectFile.TryOpen(IncludeFile.Assemble(Source, 64), out ObjectFile? opened, out _, options));
        Assert.False(opened.TryReadRecords(out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Contains("out of reach", Assert.Single(diagnostics).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_without_records_is_told()
    {
        Assert.True(ObjectFile.TryOpen(Tools.Assemble("nop\n", 64), out ObjectFile? file, out _));
        Assert.False(file.TryReadRecords(out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Equal(KernelDiagnosticCodes.ElfSectionMissing, Assert.Single(diagnostics).Code);
    }

    [Fact]
    public void Several_tables_in_one_object_file_are_told()
    {
        string source = Source + "\n.section pvpatch_sites,\"a\",@progbits,unique,1\n.skip 32\n";
        Assert.True(ObjectFile.TryOpen(IncludeFile.Assemble(source, 64), out ObjectFile? file, out _));
        Assert.False(file.TryReadRecords(out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Equal(KernelDiagnosticCodes.ObjectSeveralTables, Assert.Single(diagnostics).Code);
    }

    [Fact]
    public void Records_that_are_code_are_refused()
    {
        Assert.False(ObjectFile.TryOpen(
            Tools.Assemble(".section pvpatch_sites,\"ax\",@progbits\n.skip 32\n", 64), out _, out PatchDiagnostic? error));
        Assert.Equal(KernelDiagnosticCodes.ElfOverlap, error.Code);
    }

    [Theory]
    [InlineData(0xffff_ffff_ffff_ff00, 64)]
    [InlineData(0xffff_ff00, 32)]
    [InlineData(0x1_0000_0000, 32)]
    public void Sections_that_leave_the_address_space_are_told(ulong address, int bitness)
    {
        byte[] file = IncludeFile.Assemble(Source + "\n.skip 4096\n", bitness);
        Assert.False(ObjectFile.TryOpen(file, out _, out PatchDiagnostic? error, new ObjectOptions { Address = new(address) }));
        Assert.Equal(KernelDiagnosticCodes.ObjectBadPlacement, error.Code);
    }

    [Fact]
    public void A_record_that_lies_is_told_with_its_place_in_the_file()
    {
        byte[] file = IncludeFile.Assemble("pv_branch key, 1f\n1: pv_branch key, 1b\n", 64);
        byte[] program = Tools.Link(file, 64, [], (".text", 0x100000), (SiteRecords.SectionName, 0x200000));
        Assert.True(Files.ElfImage.Read(program).TryGetSection(SiteRecords.SectionName, out Files.ElfSection? section));
        program[section.FileOffset + 32] = 7;
        Assert.True(ObjectFile.TryOpen(program, out ObjectFile? opened, out _));
        Assert.False(opened.TryReadRecords(out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Equal((DiagnosticCodes.RecordUnknown, 1, section.FileOffset + 32),
            (Assert.Single(diagnostics).Code, diagnostics[0].SiteIndex, diagnostics[0].FileOffset));
    }

    [Fact]
    public void Code_of_a_section_that_is_no_code_in_memory_has_no_sites()
    {
        // SHF_TLS on .text, as damage may leave it: what a thread gets a copy of is not where its address says.
        byte[] file = IncludeFile.Link(
            IncludeFile.Assemble(Source, 64), 64, "-e", "0", "--emit-relocs", "--defsym=pv_ops=0x500000", "--defsym=outside=0x600000");
        Assert.True(ElfImage.Read(file).TryGetSection(".text", out ElfSection? text));
        int header = (int)BinaryPrimitives.ReadUInt64LittleEndian(file.AsSpan(0x28)) + text.Index * 64;
        file[header + 9] |= 4;
        var names = new SiteNames
        {
            Layout = OpsLayout.Create(static b => b.Table("ops", static t => t.Slot("a").Slot("b"))),
            Functions = new Dictionary<string, int> { ["outside"] = 1 },
        };
        Assert.True(ObjectFile.TryOpen(file, out ObjectFile? opened, out PatchDiagnostic? error, new ObjectOptions { Symbols = s_symbols }), error?.ToString());
        Assert.Null(opened.Code.Find(text.Address, 1));
        Assert.True(opened.TryFindSites(names, out RelocatedSites? sites, out _));
        Assert.DoesNotContain(sites.Sites, s => s.Address >= text.Address && s.Address < text.Address + (long)text.Size);
    }

    [Fact]
    public void Damaged_files_are_read_or_told()
    {
        Random random = TestSeed.NewRandom();
        byte[] relocatable = IncludeFile.Assemble(Source, 64);
        byte[] small = IncludeFile.Assemble(Source, 32);
        byte[] linked = IncludeFile.Link(
            relocatable, 64, "-e", "0", "--emit-relocs", "--defsym=pv_ops=0x500000", "--defsym=outside=0x600000");
        var layout = OpsLayout.Create(static b => b.Table("ops", static t => t.Slot("a").Slot("b")));
        var names = new SiteNames
        {
            Layout = layout,
            Tables = new Dictionary<string, Range> { ["pv_ops"] = .. },
            Functions = new Dictionary<string, int> { ["outside"] = 1 },
        };
        for (int round = 0; round < 3000; round++)
        {
            byte[] file = [.. (round % 3) switch { 0 => relocatable, 1 => small, _ => linked }];
            for (int i = random.Next(1, 6); i > 0; i--)
            {
                file[random.Next(file.Length)] = (byte)(random.Next(2) == 0 ? random.Next(256) : 0xff);
            }

            if (random.Next(8) == 0)
            {
                Array.Resize(ref file, random.Next(file.Length));
            }

            if (ObjectFile.TryOpen(file, out ObjectFile? opened, out PatchDiagnostic? error, new ObjectOptions { Symbols = s_symbols }))
            {
                Assert.Equal(opened.TryReadRecords(out SiteRecords? records, out IReadOnlyList<PatchDiagnostic> told), records is not null);
                Assert.True(records is not null || told.Count > 0);
                Assert.True(opened.TryFindSites(names, out RelocatedSites? sites, out told) || told.Count > 0);
                Assert.All(sites?.Sites ?? Plans.SiteTable.Empty, s => Assert.NotNull(opened.Code.Find(s.Address, s.Budget)));
            }
            else
            {
                Assert.NotNull(error.Code);
            }
        }
    }
}
