using System.Buffers.Binary;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Plans;
using PvPatch.Records;
using PvPatch.Tests.Shared;

namespace PvPatch.Tests.Records;

/// <summary>
/// The reader of records on tables made by hand, sound and hostile. Tables that GNU as makes are read in PvPatch.Linux.Tests.
/// </summary>
public sealed class SiteRecordsTests
{
    private const ulong Code = 0x1000;
    private const ulong Table = 0x2000;
    private const ulong Names = 0x3000;

    private static readonly byte[] s_names = "\0key\0native\0xen\0\u0001\0\0"u8.ToArray();

    public enum Part
    {
        Version = 0,
        Mechanism = 1,
        Form = 2,
        Flags = 3,
        Length = 8,
        Number = 10,
        Size = 20,
        Zero = 22,
        Value = 24,
    }

    private static byte[] Ops(ulong site = Code, int slot = 3) =>
        Record(1, site, 6, number: slot, name: Names + 1, target: 0x9000 + ((ulong)slot * 8), value: 1);

    private static byte[] Key() => Record(2, Code + 0x10, 2, flags: 3, name: Names + 1, target: Code + 0x20, key: 0x9100);

    private static byte[] Call() => Record(3, Code + 0x20, 6, form: 2, number: 4, name: Names + 1, target: Code);

    private static byte[] Variant() => Record(4, Code + 0x30, 9, name: Names + 12, target: Code + 0x50, size: 4);

    private static byte[] Replacement() => Record(5, Code + 0x40, 9, flags: 1, number: 0x110, target: Code + 0x60, size: 9);

    private static byte[] Way(int way, int ways, ulong label = Code + 4, byte flags = 0) =>
        Record(6, Code + 0x70, 5, flags: flags, number: way, name: Names + 1, target: label, value: (uint)ways);

    [Fact]
    public void Every_mechanism_is_read()
    {
        byte[] inPlace = Record(4, Code + 0x30, 9, flags: 1, name: Names + 5, target: Code + 0x30, size: 5);
        SiteRecords read = SiteRecords.Read(Image(), Segment(Replacement(), Variant(), Call(), Key(), Ops(), inPlace), NameSegment());

        Assert.Equal(6, read.Count);
        Assert.Equal([new PatchSite(Code, 3, 6, RegisterSet.Rax)], read.Sites);
        Assert.Equal([0, 0, 0, 0x9018, 0], read.SlotAddresses(5).Select(static a => a.Value));
        Assert.Equal([0], read.SlotAddresses(1).Select(static a => a.Value));
        Assert.All(read.SlotFunctions(5), static a => Assert.True(a.IsZero));
        Assert.Equal(
            new StaticKeyRecord
            {
                Address = Code + 0x10,
                Length = 2,
                Target = Code + 0x20,
                Key = "key",
                KeyAddress = new VirtualAddress(0x9100),
                IsLikely = true,
                InitialValue = true,
            },
            Assert.Single(read.StaticKeys));
        Assert.Equal(
            new StaticCallRecord
            {
                Address = Code + 0x20,
                Length = 6,
                IsTailCall = true,
                Condition = 4,
                Key = "key",
                Target = new VirtualAddress(Code),
            },
            Assert.Single(read.StaticCalls));
        Assert.Equal(
            [
                new ReplacementRecord { Address = Code + 0x30, Length = 9, Code = Code + 0x50, CodeLength = 4, Backend = "xen" },
                new ReplacementRecord { Address = Code + 0x30, Length = 9, Code = Code + 0x30, CodeLength = 5, Backend = "native" },
            ],
            read.Variants);
        Assert.Equal(
            new ReplacementRecord
            {
                Address = Code + 0x40,
                Length = 9,
                Code = Code + 0x60,
                CodeLength = 9,
                Feature = 0x110,
                IsForAbsence = true,
            },
            Assert.Single(read.Alternatives));
    }

    [Fact]
    public void An_empty_table_has_no_sites()
    {
        Assert.Equal(0, SiteRecords.Read(Image(), Segment()).Count);
    }

    [Fact]
    public void Distances_of_32_bit_code_wrap_at_4_GiB()
    {
        var image = new CodeImage(32, new CodeSegment("code", new VirtualAddress(0x10), new byte[64]));
        byte[] record = Record(1, 0, 6, name: Names + 1, target: 0x9000);
        BinaryPrimitives.WriteInt32LittleEndian(record.AsSpan(4), unchecked((int)(0x10 - (0xfffff000u + 4))));
        BinaryPrimitives.WriteInt32LittleEndian(record.AsSpan(12), 0);
        BinaryPrimitives.WriteInt32LittleEndian(record.AsSpan(16), 0x2000);
        var table = new CodeSegment("sites", new VirtualAddress(0xfffff000), record);
        Assert.False(SiteRecords.TryRead(image, table, null, out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Equal([DiagnosticCodes.RecordName], diagnostics.Select(static d => d.Code)); // an ops site without a name, but in the code
    }

    [Theory]
    [InlineData(Part.Version, 0, DiagnosticCodes.RecordUnknown)]
    [InlineData(Part.Version, 2, DiagnosticCodes.RecordUnknown)]
    [InlineData(Part.Mechanism, 0, DiagnosticCodes.RecordUnknown)]
    [InlineData(Part.Mechanism, 7, DiagnosticCodes.RecordUnknown)]
    [InlineData(Part.Form, 3, DiagnosticCodes.RecordField)]
    [InlineData(Part.Flags, 2, DiagnosticCodes.RecordField)]
    [InlineData(Part.Length, 0, DiagnosticCodes.SiteZeroLength)]
    [InlineData(Part.Length, 255, DiagnosticCodes.SiteTooLong)]
    [InlineData(Part.Length, 200, DiagnosticCodes.SiteOutsideImage)]
    [InlineData(Part.Size, 1, DiagnosticCodes.RecordField)]
    [InlineData(Part.Zero, 1, DiagnosticCodes.RecordField)]
    [InlineData(Part.Value, 1u << 18, DiagnosticCodes.RecordField)]
    public void A_field_of_an_ops_record_that_cannot_be_is_told(Part part, uint value, string code) =>
        Refused(With(Ops(), part, value), code);

    [Theory]
    [InlineData(Part.Form, 1, DiagnosticCodes.RecordField)]
    [InlineData(Part.Flags, 4, DiagnosticCodes.RecordField)]
    [InlineData(Part.Length, 3, DiagnosticCodes.RecordField)]
    [InlineData(Part.Length, 6, DiagnosticCodes.RecordField)]
    [InlineData(Part.Number, 1, DiagnosticCodes.RecordField)]
    [InlineData(Part.Size, 1, DiagnosticCodes.RecordField)]
    [InlineData(Part.Value, 1, DiagnosticCodes.RecordField)]
    public void A_field_of_a_key_that_cannot_be_is_told(Part part, uint value, string code) => Refused(With(Key(), part, value), code);

    [Theory]
    [InlineData(Part.Form, 3, DiagnosticCodes.RecordField)]
    [InlineData(Part.Flags, 1, DiagnosticCodes.RecordField)]
    [InlineData(Part.Length, 5, DiagnosticCodes.RecordField)]
    [InlineData(Part.Number, 16, DiagnosticCodes.RecordField)]
    [InlineData(Part.Value, 1, DiagnosticCodes.RecordField)]
    public void A_field_of_a_static_call_that_cannot_be_is_told(Part part, uint value, string code) =>
        Refused(With(Call(), part, value), code);

    [Theory]
    [InlineData(Part.Flags, 2, DiagnosticCodes.RecordField)]
    [InlineData(Part.Flags, 1, DiagnosticCodes.RecordTarget)] // says it stands in place, and does not
    [InlineData(Part.Number, 1, DiagnosticCodes.RecordField)]
    [InlineData(Part.Size, 10, DiagnosticCodes.RecordField)]
    [InlineData(Part.Value, 1, DiagnosticCodes.RecordField)]
    public void A_field_of_a_variant_that_cannot_be_is_told(Part part, uint value, string code) =>
        Refused(With(Variant(), part, value), code);

    [Theory]
    [InlineData(Part.Form, 1, DiagnosticCodes.RecordField)]
    [InlineData(Part.Flags, 2, DiagnosticCodes.RecordField)]
    [InlineData(Part.Length, 6, DiagnosticCodes.RecordField)]
    [InlineData(Part.Number, 1, DiagnosticCodes.RecordField)] // of one way
    [InlineData(Part.Size, 1, DiagnosticCodes.RecordField)]
    [InlineData(Part.Value, 0, DiagnosticCodes.RecordField)]
    [InlineData(Part.Value, 2, DiagnosticCodes.RecordSlot)]
    [InlineData(Part.Value, 1u << 31, DiagnosticCodes.RecordSlot)]
    public void A_field_of_a_way_that_cannot_be_is_told(Part part, uint value, string code) => Refused(With(Way(0, 1), part, value), code);

    [Fact]
    public void The_ways_of_a_site_are_there_once_each_and_agree()
    {
        SiteRecords read = SiteRecords.Read(Image(), Segment(Way(2, 3, 0), Way(0, 3), Way(1, 3, flags: 1)), NameSegment());
        MultiBranchRecord branch = Assert.Single(read.MultiBranches);
        Assert.Equal((new VirtualAddress(Code + 0x70), 5, "key"), (branch.Address, branch.Length, branch.Branch));
        Assert.Equal((1, null), (branch.InitialWay, branch.KeyAddress));
        Assert.Equal([Code + 4, Code + 4, 0], branch.Labels.Select(static l => l?.Value ?? 0));

        const string Bad = DiagnosticCodes.RecordSlot;
        Assert.Equal(Bad, Errors(Way(0, 2)));
        Assert.Equal(Bad, Errors(Way(1, 2)));
        Assert.Equal(Bad, Errors(Way(0, 2), Way(0, 2)));
        Assert.Equal(Bad, Errors(Way(0, 2), Way(1, 2), Way(1, 2)));
        Assert.Equal(Bad, Errors(Way(0, 2), Way(1, 3)));
        Assert.Equal(Bad, Errors(Way(0, 2), Record(6, Code + 0x70, 5, number: 1, name: Names + 12, target: Code, value: 2)));
        Assert.Equal(Bad, Errors(Way(0, 2, flags: 1), Way(1, 2, flags: 1)));
        Assert.Equal(DiagnosticCodes.SiteDuplicate, Errors(Way(0, 1), Record(2, Code + 0x70, 5, name: Names + 1, target: Code)));
        Assert.Equal(DiagnosticCodes.SiteDuplicate, Errors(Way(0, 1), Record(6, Code + 0x70, 2, name: Names + 1, value: 1)));
    }

    [Fact]
    public void As_many_ways_of_one_site_as_there_can_be_take_no_time()
    {
        byte[] table = [.. Enumerable.Range(0, 65_536).SelectMany(static i => Moved(Way(i, 65_536), 32 * i))];
        SiteRecords read = SiteRecords.Read(Image(), new CodeSegment("sites", new VirtualAddress(Table), table), NameSegment());
        Assert.Equal((65_536, 65_536), (read.Count, read.MultiBranches[0].Labels.Count));
    }

    public static TheoryData<byte[], string> Lies => new()
    {
        { Record(1, Code - 1, 6, name: Names + 1, target: 0x9000), DiagnosticCodes.SiteOutsideImage },
        { Record(1, Code + 0x7b, 6, name: Names + 1, target: 0x9000), DiagnosticCodes.SiteOutsideImage }, // its last byte
        { Record(1, 0, 6, name: Names + 1, target: 0x9000), DiagnosticCodes.SiteOutsideImage }, // no site at all
        { Record(1, Code, 6, name: Names + 1), DiagnosticCodes.RecordTarget },
        { Record(1, Code, 6, target: 0x9000), DiagnosticCodes.RecordName },
        { Record(1, Code, 6, name: Names + 1, target: 0x9000, key: Code), DiagnosticCodes.RecordField },
        { Record(1, Code, 6, name: Names - 1, target: 0x9000), DiagnosticCodes.RecordName },
        { Record(1, Code, 6, name: Names, target: 0x9000), DiagnosticCodes.RecordName }, // empty
        { Record(1, Code, 6, name: Names + 16, target: 0x9000), DiagnosticCodes.RecordName }, // a control character
        { Record(1, Code, 6, name: Names + 20, target: 0x9000), DiagnosticCodes.RecordName }, // behind the end
        { Record(2, Code, 5, target: Code), DiagnosticCodes.RecordName },
        { Record(2, Code, 5, name: Names + 1, target: Code + 0x80), DiagnosticCodes.RecordTarget },
        { Record(2, Code, 5, name: Names + 1), DiagnosticCodes.RecordTarget },
        { Record(3, Code, 5, target: Code), DiagnosticCodes.RecordName },
        { Record(6, Code, 5, target: Code, value: 1), DiagnosticCodes.RecordName },
        { Record(6, Code, 5, name: Names + 1, target: Code + 0x80, value: 1), DiagnosticCodes.RecordTarget },
        { Record(4, Code, 5, target: Code + 0x20, size: 2), DiagnosticCodes.RecordName },
        { Record(4, Code, 5, name: Names + 5, target: Code + 4, size: 2), DiagnosticCodes.RecordTarget }, // in its own region
        { Record(4, Code + 8, 5, name: Names + 5, target: Code + 6, size: 3), DiagnosticCodes.RecordTarget }, // reaches into it
        { Record(4, Code, 5, name: Names + 5, target: Table, size: 2), DiagnosticCodes.RecordTarget },
        { Record(5, Code, 5, name: Names + 5, target: Code + 0x20, size: 2), DiagnosticCodes.RecordField },
        { Record(5, Code, 5, target: Code + 0x7f, size: 2), DiagnosticCodes.RecordTarget },
    };

    [Theory]
    [MemberData(nameof(Lies))]
    public void A_reference_that_leads_nowhere_is_told(byte[] record, string code) => Refused(record, code);

    [Fact]
    public void A_label_out_of_reach_of_two_bytes_is_told()
    {
        var image = new CodeImage(new VirtualAddress(Code), new byte[0x200]);
        foreach ((ulong target, bool reaches) in ((ulong, bool)[])[(Code + 0x81, true), (Code + 0x82, false)])
        {
            bool read = SiteRecords.TryRead(
                image, Segment(Record(2, Code, 2, name: Names + 1, target: target)), NameSegment(), out _, out var diagnostics);
            Assert.Equal((reaches, reaches ? null : DiagnosticCodes.RecordTarget), (read, diagnostics.SingleOrDefault()?.Code));
        }

        foreach ((ulong target, bool reaches) in ((ulong, bool)[])[(Code + 0x80, true), (Code + 0x7f, false)])
        {
            bool read = SiteRecords.TryRead(
                image, Segment(Record(2, Code + 0xfe, 2, name: Names + 1, target: target)), NameSegment(), out _, out var diagnostics);
            Assert.Equal((reaches, reaches ? null : DiagnosticCodes.RecordTarget), (read, diagnostics.SingleOrDefault()?.Code));
        }
    }

    [Fact]
    public void A_name_without_end_is_told()
    {
        byte[] endless = [.. Enumerable.Repeat((byte)'a', 4000)];
        var names = new CodeSegment("names", new VirtualAddress(Names), endless);
        Assert.False(SiteRecords.TryRead(Image(), Segment(Ops()), names, out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Equal(DiagnosticCodes.RecordName, Assert.Single(diagnostics).Code);

        endless[255 + 1] = 0; // 255 bytes from the second on: the longest there is
        Assert.True(SiteRecords.TryRead(Image(), Segment(Ops()), names, out _, out _));
        endless[255 + 1] = (byte)'a';
        endless[255 + 2] = 0;
        Assert.False(SiteRecords.TryRead(Image(), Segment(Ops()), names, out _, out _));
    }

    [Fact]
    public void No_two_sites_share_a_byte_but_pieces_for_one_region()
    {
        Assert.Equal(DiagnosticCodes.SiteDuplicate, Errors(Ops(), Ops()));
        Assert.Equal(DiagnosticCodes.SiteOverlap, Errors(Ops(), Ops(Code + 5, slot: 4)));
        Assert.Equal("", Errors(Ops(), Ops(Code + 6, slot: 4)));
        Assert.Equal(DiagnosticCodes.SiteDuplicate, Errors(Record(4, Code, 6, name: Names + 5, target: Code + 0x20, size: 2), Ops()));
        Assert.Equal(
            DiagnosticCodes.SiteDuplicate,
            Errors(Record(4, Code, 6, name: Names + 5, target: Code + 0x20), Record(4, Code, 7, name: Names + 12, target: Code + 0x20)));
        Assert.Equal(
            DiagnosticCodes.RecordName,
            Errors(Record(4, Code, 6, name: Names + 5, target: Code + 0x20), Record(4, Code, 6, name: Names + 5, target: Code + 0x30)));
        Assert.Equal("", Errors(Replacement(), Replacement()));
    }

    [Fact]
    public void Records_that_give_a_slot_two_words_are_told()
    {
        byte[] other = Record(1, Code + 8, 6, number: 3, name: Names + 1, target: 0x9020, value: 1);
        Assert.Equal(DiagnosticCodes.RecordSlot, Errors(Ops(), other));
        other[(int)Part.Form] = 2; // a function is not a word
        Assert.Equal("", Errors(Ops(), other));
    }

    [Fact]
    public void A_table_that_is_cut_off_is_told_with_its_other_faults()
    {
        byte[] table = [.. With(Ops(), Part.Version, 9), .. Ops()[..31]];
        Assert.False(SiteRecords.TryRead(Image(), Segment(table), NameSegment(), out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Equal([DiagnosticCodes.TableStride, DiagnosticCodes.RecordUnknown], diagnostics.Select(static d => d.Code));
        Assert.Equal(0, diagnostics[1].SiteIndex);
    }

    [Fact]
    public void Findings_are_bounded()
    {
        byte[] table = new byte[32 * 5000];
        Assert.False(SiteRecords.TryRead(Image(), Segment(table), NameSegment(), out _, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.InRange(diagnostics.Count, 100, 101);
    }

    [Fact]
    public void A_scrambled_table_is_sound_or_told()
    {
        Random random = TestSeed.NewRandom();
        int sound = 0;
        for (int round = 0; round < 20_000; round++)
        {
            byte[] table = [.. Ops(), .. Key(), .. Call(), .. Variant(), .. Replacement(), .. Way(0, 2), .. Way(1, 2, 0)];
            for (int i = random.Next(1, 5); i > 0; i--)
            {
                int at = random.Next(table.Length);
                table[at] = random.Next(3) == 0 ? (byte)random.Next(256) : (byte)(table[at] ^ (1 << random.Next(8)));
            }

            int length = random.Next(10) == 0 ? random.Next(table.Length) : table.Length;
            CodeImage image = Image();
            bool read = SiteRecords.TryRead(
                image, Segment(table[..length]), NameSegment(), out SiteRecords? records, out IReadOnlyList<PatchDiagnostic> diagnostics);
            Assert.Equal(read, !diagnostics.Any(static d => d.Severity == DiagnosticSeverity.Error));
            if (read)
            {
                sound++;
                Assert.All(records!.Sites, s => Assert.NotNull(image.Find(s.Address, s.Budget)));
                Assert.All(records.StaticKeys, r => Assert.NotNull(image.Find(r.Address, r.Length)));
                Assert.All(records.StaticCalls, r => Assert.NotNull(image.Find(r.Address, r.Length)));
                Assert.All(records.MultiBranches, r => Assert.NotNull(image.Find(r.Address, r.Length)));
                Assert.All(
                    records.Variants.Concat(records.Alternatives),
                    r => Assert.True(image.Find(r.Address, r.Length) is not null && image.Find(r.Code, r.CodeLength) is not null));
            }
        }

        Assert.InRange(sound, 100, 19_900); // else the scrambling is too gentle or too rude to say anything
    }

    private static string Errors(params byte[][] records)
    {
        SiteRecords.TryRead(Image(), Segment(records), NameSegment(), out _, out IReadOnlyList<PatchDiagnostic> diagnostics);
        return string.Join(' ', diagnostics.Select(static d => d.Code));
    }

    private static void Refused(byte[] record, string code)
    {
        Assert.False(SiteRecords.TryRead(Image(), Segment(record), NameSegment(), out SiteRecords? read, out var diagnostics));
        Assert.Null(read);
        Assert.Contains(code, diagnostics.Select(static d => d.Code));
        Assert.All(diagnostics, static d => Assert.Equal((0, Table, "sites"), (d.SiteIndex, d.Address?.Value, d.Source)));
    }

    private static byte[] With(byte[] record, Part part, uint value)
    {
        switch (part)
        {
            case Part.Value:
                BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan((int)part), value);
                break;
            case Part.Length or Part.Number or Part.Size or Part.Zero:
                BinaryPrimitives.WriteUInt16LittleEndian(record.AsSpan((int)part), (ushort)value);
                break;
            default:
                record[(int)part] = (byte)value;
                break;
        }

        return record;
    }

    private static CodeImage Image() => new(new VirtualAddress(Code), new byte[0x80]);

    private static CodeSegment NameSegment() => new("names", new VirtualAddress(Names), s_names);

    /// <summary>A table at <see cref="Table"/>: each record was made for the first place, so its distances are moved along.</summary>
    private static CodeSegment Segment(params byte[][] records)
    {
        byte[] table = [.. records.SelectMany(static r => r)];
        for (int at = 32; at + 32 <= table.Length; at += 32)
        {
            Moved(table.AsSpan(at, 32).ToArray(), at).CopyTo(table, at);
        }

        return new CodeSegment("sites", new VirtualAddress(Table), table);
    }

    private static byte[] Moved(byte[] record, int at)
    {
        foreach (int field in (int[])[4, 12, 16, 28])
        {
            Span<byte> distance = record.AsSpan(field, 4);
            int value = BinaryPrimitives.ReadInt32LittleEndian(distance);
            BinaryPrimitives.WriteInt32LittleEndian(distance, value == 0 ? 0 : value - at);
        }

        return record;
    }

    private static byte[] Record(
        byte mechanism, ulong site, int length, byte form = 0, byte flags = 0, int number = 0, ulong name = 0, ulong target = 0,
        int size = 0, uint value = 0, ulong key = 0)
    {
        byte[] record = new byte[32];
        record[0] = 1;
        record[1] = mechanism;
        record[2] = form;
        record[3] = flags;
        Refer(4, site);
        BinaryPrimitives.WriteUInt16LittleEndian(record.AsSpan(8), (ushort)length);
        BinaryPrimitives.WriteUInt16LittleEndian(record.AsSpan(10), (ushort)number);
        Refer(12, name);
        Refer(16, target);
        BinaryPrimitives.WriteUInt16LittleEndian(record.AsSpan(20), (ushort)size);
        BinaryPrimitives.WriteUInt32LittleEndian(record.AsSpan(24), value);
        Refer(28, key);
        return record;

        void Refer(int field, ulong address) =>
            BinaryPrimitives.WriteInt32LittleEndian(record.AsSpan(field), address == 0 ? 0 : (int)((long)address - (long)Table - field));
    }
}
