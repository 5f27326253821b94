using PvPatch.Linux.Dumps;

namespace PvPatch.Linux.Tests.Memory;

public sealed class LimeTests
{
    [Fact]
    public void Ranges_are_physical_memory_and_what_lies_between_is_a_hole()
    {
        using MemoryFile file = TestCore.Open(new TestLime().Range(0x1000, [1, 2, 3]).Range(0x100000, [4, 5]).Build());

        Assert.Equal(MemoryFileKind.Lime, file.Kind);
        Assert.Null(file.Bitness);
        Assert.False(file.HasVirtualAddresses);
        Assert.Equal([1, 2, 3], Read(file, 0x1000, 3));
        Assert.Equal([5], Read(file, 0x100001, 1));
        Assert.Null(Read(file, 0x1000, 4));
        Assert.Null(Read(file, 0xfff, 2));
        Assert.Empty(file.Warnings);
    }

    [Fact]
    public void A_range_may_end_with_the_address_space()
    {
        using MemoryFile file = TestCore.Open(new TestLime().Range(ulong.MaxValue - 1, [1, 2], ulong.MaxValue).Build());

        Assert.Equal([1, 2], Read(file, ulong.MaxValue - 1, 2));
        Assert.Empty(file.Warnings);
    }

    [Theory]
    [InlineData(0UL, ulong.MaxValue)]
    [InlineData(0x1000UL, 0x1004UL)]
    [InlineData(0x1000UL, 0x7fffffffffffffffUL)]
    public void A_range_that_goes_on_behind_the_file_is_cut(ulong first, ulong last)
    {
        using MemoryFile file = TestCore.Open(new TestLime().Range(first, [1, 2, 3, 4], last).Build());

        Assert.Equal([1, 2, 3, 4], Read(file, first, 4));
        Assert.Null(Read(file, first, 5));
        Assert.Equal("PV6125", Assert.Single(file.Warnings).Code);
    }

    [Fact]
    public void A_header_cut_short_ends_the_dump_with_a_warning()
    {
        using MemoryFile file = TestCore.Open(new TestLime().Range(0x1000, [1, 2]).Bytes([.. "EMiL"u8]).Build());

        Assert.Equal([1, 2], Read(file, 0x1000, 2));
        Assert.Equal("PV6125", Assert.Single(file.Warnings).Code);
    }

    [Fact]
    public void Behind_a_header_that_is_none_nothing_is_read()
    {
        using MemoryFile file = TestCore.Open(new TestLime().Range(0x1000, [1, 2]).Bytes(new byte[100]).Range(0x2000, [3]).Build());

        Assert.Equal([1, 2], Read(file, 0x1000, 2));
        Assert.Null(Read(file, 0x2000, 1));
        PatchDiagnostic warning = Assert.Single(file.Warnings);
        Assert.Equal("PV6155", warning.Code);
        Assert.Equal(34, warning.FileOffset);
    }

    [Fact]
    public void Ranges_that_share_addresses_are_told_of()
    {
        using MemoryFile file = TestCore.Open(new TestLime().Range(0x1001, [8, 8, 8]).Range(0x1000, [1, 2]).Build());

        Assert.Equal([1, 2, 8, 8], Read(file, 0x1000, 4));
        Assert.Equal("PV6126", Assert.Single(file.Warnings).Code);
    }

    private static byte[]? Read(MemoryFile file, ulong address, int length)
    {
        byte[] bytes = new byte[length];
        return file.TryReadPhysical(address, bytes) ? bytes : null;
    }
}
