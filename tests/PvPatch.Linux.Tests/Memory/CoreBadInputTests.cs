using PvPatch.Linux.Dumps;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Memory;

public sealed class CoreBadInputTests
{
    private const ulong Kernel = 0xffffffff81000000;

    public static TheoryData<string, byte[]> Refused => new()
    {
        { "PV6124", [] },
        { "PV6121", [0] },
        { "PV6121", [.. "a text that is no core at all, and long enough for a header of 64 bytes"u8] },
        { "PV6121", new TestCore { Type = 2 }.Load(Kernel, 0x1000, [1]).Build() },
        { "PV6122", Good()[..63] },
        { "PV6122", Changed(4, 3) },
        { "PV6122", Changed(5, 2) },
        { "PV6122", Changed(18, 40) },
        { "PV6122", Changed(54, 55) },
        { "PV6122", Good().With16(56, 0xffff) }, // the number of headers in a section header that is not there
        { "PV6122", Good().With16(56, 0xffff).With64(40, ulong.MaxValue - 8) },
        { "PV6123", Good().With64(32, ulong.MaxValue) },
        { "PV6123", Good().With16(56, 0xfffe) },
        { "PV6123", new TestCore { ExtendedCount = true }.Load(Kernel, 0x1000, [1]).Build().With32(64 + (2 * 56) + 44, uint.MaxValue) },
        { "PV6124", new TestCore().Build() },
        { "PV6124", new TestCore().Load(Kernel, 0x1000, [1], 0).Build() },
        { "PV6124", Good().With16(56, 0) },
    };

    [Theory]
    [MemberData(nameof(Refused))]
    public void Files_that_are_no_cores_are_refused_with_a_reason(string code, byte[] bytes)
    {
        Assert.False(MemoryFile.TryOpen(new BytesMemorySource(bytes), "core", null, out _, out PatchDiagnostic? error));

        Assert.Equal(code, error.Code);
        Assert.Equal("core", error.Source);
        Assert.NotNull(error.Help);
    }

    [Fact]
    public void The_kernels_note_is_read()
    {
        using MemoryFile file = new TestCore()
            .Note("CORE", 1, new byte[336])
            .Note("QEMU", 0, new byte[433])
            .VmCoreInfo("OSRELEASE=6.1.0-18-amd64", "KERNELOFFSET=1e000000", "NUMBER(phys_base)=-16777216", "SYMBOL(x)=1=2")
            .Load(Kernel, 0x1000, [1])
            .Open();

        Assert.NotNull(file.Notes);
        Assert.Equal("6.1.0-18-amd64", file.Notes.Release);
        Assert.Equal(0x1e000000, file.Notes.KernelOffset);
        Assert.Equal(-16777216, file.Notes.PhysicalBase);
        Assert.True(file.Notes.TryGet("SYMBOL(x)", out string? value));
        Assert.Equal("1=2", value);
        Assert.Empty(file.Warnings);
    }

    [Theory]
    [InlineData(0xffffffffu, 0u)]
    [InlineData(0u, 0xffffffffu)]
    [InlineData(5u, 0x10000u)]
    public void Notes_that_lie_about_their_lengths_are_passed_over(uint nameLength, uint length)
    {
        byte[] header = new byte[12].With32(0, nameLength).With32(4, length);
        using MemoryFile file = new TestCore().RawNotes(header).VmCoreInfo("KERNELOFFSET=0").Load(Kernel, 0x1000, [1]).Open();

        Assert.Null(file.Notes);
        Assert.Equal("PV6127", Assert.Single(file.Warnings).Code);
    }

    [Fact]
    public void Notes_without_any_content_come_to_an_end()
    {
        // Each empty note is 12 zeros: a megabyte of them is more than are walked.
        var source = new BytesMemorySource(new TestCore().RawNotes(new byte[1 << 20]).Load(Kernel, 0x1000, [1]).Build());
        Assert.True(MemoryFile.TryOpen(source, "core", null, out MemoryFile? file, out _));
        using (file)
        {
            Assert.Null(file.Notes);
            Assert.True(source.BytesRead < 1 << 20);
        }
    }

    [Theory]
    [InlineData("KERNELOFFSET=", "NUMBER(phys_base)=x")]
    [InlineData("KERNELOFFSET=-1", "NUMBER(phys_base)=99999999999999999999")]
    [InlineData("KERNELOFFSET", "=1")]
    public void Numbers_that_are_none_are_not_there(params string[] lines)
    {
        using MemoryFile file = new TestCore().VmCoreInfo(lines).Load(Kernel, 0x1000, [1]).Open();

        Assert.NotNull(file.Notes);
        Assert.Null(file.Notes.KernelOffset);
        Assert.Null(file.Notes.PhysicalBase);
        Assert.Null(file.Notes.Release);
    }

    private static byte[] Good() => new TestCore().Load(Kernel, 0x1000, [1]).Build();

    private static byte[] Changed(int offset, byte value)
    {
        byte[] bytes = Good();
        bytes[offset] = value;
        return bytes;
    }
}
