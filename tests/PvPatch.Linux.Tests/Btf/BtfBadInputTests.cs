using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;
using Member = PvPatch.Linux.Tests.Support.TestBtf.Member;

namespace PvPatch.Linux.Tests.Btf;

public sealed class BtfBadInputTests
{
    [Fact]
    public void Every_truncation_is_refused()
    {
        byte[] btf = Sound().Build();
        for (int length = 0; length < btf.Length; length++)
        {
            Assert.False(BtfStructLayout.TryRead(btf.AsMemory(0, length), "ops", out _, out PatchDiagnostic? error));
            Assert.NotNull(error.Help);
        }
    }

    [Theory]
    [InlineData(0, 0x9feb)]
    [InlineData(2, 2)]
    public void Other_headers_are_refused(int offset, ushort value) =>
        Assert.Equal(KernelDiagnosticCodes.BtfBadHeader, Refuse(Sound().Build().With16(offset, value)).Code);

    [Theory]
    [InlineData(4, 23)]
    [InlineData(4, 0xffffffff)]
    [InlineData(8, 0xffffffff)]
    [InlineData(12, 0xffffffff)]
    [InlineData(16, 0xfffffff0)]
    [InlineData(20, 0x7fffffff)]
    public void Parts_outside_the_data_are_refused(int field, uint value) =>
        Assert.Equal(KernelDiagnosticCodes.BtfPartOutsideData, Refuse(Sound().Build().With32(field, value)).Code);

    [Theory]
    [InlineData(-1, false)]
    [InlineData(0, true)]
    public void Types_and_strings_that_share_bytes_are_refused(int moved, bool isAccepted)
    {
        // Strings start where the types end; one byte earlier they would be the types' last as well.
        byte[] btf = Sound().Build();
        uint types = BitConverter.ToUInt32(btf, 12);
        Assert.Equal(types, BitConverter.ToUInt32(btf, 16));
        byte[] other = btf.With32(16, (uint)(types + moved)).With32(20, (uint)(BitConverter.ToInt32(btf, 20) - moved));
        Assert.Equal(isAccepted, BtfStructLayout.TryRead(other, "ops", out _, out PatchDiagnostic? error));
        Assert.Equal(isAccepted ? null : KernelDiagnosticCodes.BtfPartOutsideData, error?.Code);
    }

    [Fact]
    public void Strings_without_an_end_are_refused()
    {
        byte[] btf = Sound().Build();
        btf[^1] = (byte)'x';
        Assert.Equal(KernelDiagnosticCodes.BtfPartOutsideData, Refuse(btf).Code);
    }

    [Fact]
    public void Unknown_kinds_and_records_cut_short_are_refused_with_their_place()
    {
        var unknown = new TestBtf();
        unknown.Pointer(0);
        unknown.Other(20, 0, "later", 0);
        PatchDiagnostic error = Refuse(unknown.Build());
        Assert.Equal(KernelDiagnosticCodes.BtfBadType, error.Code);
        Assert.Equal(TestBtf.HeaderSize + 12, error.FileOffset);
        Assert.Equal("kind 20", error.Found);

        var cut = new TestBtf();
        cut.Other(4, 65535, "ops", 8);
        Assert.Equal(KernelDiagnosticCodes.BtfBadType, Refuse(cut.Build()).Code);
    }

    [Fact]
    public void A_struct_that_contains_itself_is_refused()
    {
        var btf = new TestBtf();
        btf.Struct("ops", 8, new Member("again", 1, 0));
        Assert.Equal(KernelDiagnosticCodes.BtfTooDeep, Refuse(btf.Build()).Code);
    }

    [Fact]
    public void Structs_that_contain_each_other_are_refused()
    {
        var btf = new TestBtf();
        btf.Struct("ops", 8, new Member("a", 2, 0), new Member("b", 2, 0));
        btf.Union("", 8, new Member("c", 1, 0), new Member("d", 1, 0));
        Assert.Equal(KernelDiagnosticCodes.BtfTooDeep, Refuse(btf.Build()).Code);
    }

    [Fact]
    public void Typedefs_in_a_circle_are_refused()
    {
        var btf = new TestBtf();
        btf.Typedef("a", 2);
        btf.Const(3);
        btf.Volatile(1);
        btf.Struct("ops", 8, new Member("x", 1, 0));
        Assert.Equal(KernelDiagnosticCodes.BtfTooDeep, Refuse(btf.Build()).Code);
    }

    [Fact]
    public void Arrays_of_themselves_are_refused()
    {
        var btf = new TestBtf();
        btf.Array(1, 1, 1);
        btf.Struct("ops", 8, new Member("x", 1, 0));
        Assert.Equal(KernelDiagnosticCodes.BtfTooDeep, Refuse(btf.Build()).Code);
    }

    [Fact]
    public void Structs_that_double_at_every_level_are_refused()
    {
        var btf = new TestBtf();
        int type = btf.Struct("", 0);
        for (int i = 0; i < 15; i++)
        {
            type = btf.Struct("", 0, new Member("", type, 0), new Member("", type, 0));
        }

        btf.Struct("ops", 8, new Member("x", type, 0));
        Assert.Equal(KernelDiagnosticCodes.BtfTooDeep, Refuse(btf.Build()).Code);
    }

    [Theory]
    [InlineData(uint.MaxValue)]
    [InlineData(3u)]
    public void An_array_larger_than_its_struct_is_refused(uint count)
    {
        var btf = new TestBtf();
        int pointer = btf.Pointer(0);
        btf.Struct("ops", 16, new Member("x", btf.Array(pointer, pointer, count), 0));
        Assert.Equal(KernelDiagnosticCodes.BtfBadMember, Refuse(btf.Build()).Code);
    }

    [Fact]
    public void Too_many_members_are_refused()
    {
        var btf = new TestBtf();
        int number = btf.Int("char", 1);
        btf.Struct("ops", 5000, new Member("x", btf.Array(number, number, 5000), 0));
        Assert.Equal(KernelDiagnosticCodes.BtfTooDeep, Refuse(btf.Build()).Code);
    }

    [Fact]
    public void Types_and_names_that_do_not_exist_are_refused()
    {
        var type = new TestBtf();
        type.Struct("ops", 8, new Member("x", 77, 0));
        PatchDiagnostic error = Refuse(type.Build());
        Assert.Equal(KernelDiagnosticCodes.BtfBadReference, error.Code);
        Assert.Equal("type 77", error.Found);

        byte[] name = Sound().Build();
        int member = TestBtf.HeaderSize + 12 + 12;
        Assert.Equal(KernelDiagnosticCodes.BtfBadReference, Refuse(name.With32(member, 0x10000000)).Code);
    }

    [Fact]
    public void Members_outside_the_struct_and_members_without_size_are_refused()
    {
        var outside = new TestBtf();
        outside.Struct("ops", 8, new Member("x", outside.Pointer(0), 8));
        Assert.Equal(KernelDiagnosticCodes.BtfBadMember, Refuse(outside.Build()).Code);
        var nothing = new TestBtf();
        nothing.Struct("ops", 8, new Member("x", 0, 0));
        Assert.Equal(KernelDiagnosticCodes.BtfBadMember, Refuse(nothing.Build()).Code);
    }

    [Fact]
    public void Bit_fields_are_refused()
    {
        var btf = new TestBtf();
        int number = btf.Int("int", 4);
        btf.StructWithBitFields("ops", 8, new Member("x", number, 3 << 24));
        Assert.Equal(KernelDiagnosticCodes.BtfBadMember, Refuse(btf.Build()).Code);
    }

    [Fact]
    public void Two_different_structs_of_the_name_are_refused()
    {
        TestBtf btf = Sound();
        btf.Struct("ops", 16);
        Assert.Equal(KernelDiagnosticCodes.BtfStructAmbiguous, Refuse(btf.Build()).Code);
    }

    private static TestBtf Sound()
    {
        var btf = new TestBtf();
        int pointer = btf.Pointer(0);
        btf.Struct("ops", 8, new Member("x", pointer, 0));
        return btf;
    }

    private static PatchDiagnostic Refuse(byte[] btf)
    {
        Assert.False(BtfStructLayout.TryRead(btf, "ops", out BtfStruct? layout, out PatchDiagnostic? error));
        Assert.Null(layout);
        return error;
    }
}
