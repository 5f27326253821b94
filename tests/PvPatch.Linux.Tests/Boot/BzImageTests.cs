using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Boot;

public sealed class BzImageTests
{
    private static readonly byte[] s_payload = TestBzImage.Gzip(new byte[100]);
    private static readonly byte[] s_file = TestBzImage.Build(s_payload);

    [Fact]
    public void The_boot_header_says_version_and_payload()
    {
        Assert.True(BzImage.TryRead(s_file, out BzImage? image, out _));
        Assert.Equal(0x20f, image.ProtocolVersion);
        Assert.Equal(2, image.SetupSectors);
        Assert.Equal(TestBzImage.Version, image.KernelVersion);
        Assert.Equal(TestBzImage.PayloadAt, image.PayloadOffset);
        Assert.Equal(s_payload, image.GetPayload(s_file).ToArray());
    }

    [Fact]
    public void No_setup_sectors_stand_for_four()
    {
        byte[] file = TestBzImage.Build(s_payload, setupSectors: 4);
        Assert.Equal(0, file[0x1f1]);
        Assert.True(BzImage.TryRead(file, out BzImage? image, out _));
        Assert.Equal(4, image.SetupSectors);
        Assert.Equal((5 * 512) + TestBzImage.PayloadOffset, image.PayloadOffset);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(0xffff)]
    [InlineData(0x400)]
    public void A_version_text_outside_the_setup_code_is_left_out(ushort place)
    {
        Assert.True(BzImage.TryRead(s_file.With16(0x20e, place), out BzImage? image, out _));
        Assert.Equal("", image.KernelVersion);
    }

    [Fact]
    public void Truncated_headers_are_refused()
    {
        Assert.Equal(KernelDiagnosticCodes.BzImageTruncated, Refuse(s_file[..0x24f]).Code);
        Assert.Equal(KernelDiagnosticCodes.BzImagePayloadOutsideFile, Refuse(s_file[..0x250]).Code);
        Assert.Equal(
            KernelDiagnosticCodes.BzImagePayloadOutsideFile, Refuse(s_file[..(TestBzImage.PayloadAt + s_payload.Length - 1)]).Code);
    }

    [Fact]
    public void Other_marks_and_old_protocols_are_refused()
    {
        PatchDiagnostic mark = Refuse(s_file.With32(0x202, 0x12345678));
        Assert.Equal(KernelDiagnosticCodes.BzImageBadHeader, mark.Code);
        Assert.Equal("78 56 34 12", mark.Found);
        PatchDiagnostic old = Refuse(s_file.With16(0x206, 0x207));
        Assert.Equal(KernelDiagnosticCodes.BzImageBadHeader, old.Code);
        Assert.Equal(0x206, old.FileOffset);
    }

    [Fact]
    public void A_header_that_ends_before_its_payload_fields_is_refused()
    {
        PatchDiagnostic error = Refuse(With8(s_file, 0x201, 0x4d));
        Assert.Equal(KernelDiagnosticCodes.BzImageBadHeader, error.Code);
        Assert.Equal(0x201, error.FileOffset);

        // That of protocol 2.08 ends there; what lies behind it is code, whatever its bytes are.
        byte[] old = With8(s_file, 0x201, 0x4e).With16(0x206, 0x208).With32(0x260, 1).With32(0x264, 0xffffffff).With32(0x268, 0xffffffff);
        Assert.True(BzImage.TryRead(old, out _, out _));
    }

    [Theory]
    [InlineData(0x248, 0xffffffff)]
    [InlineData(0x24c, 0xffffffff)]
    public void A_payload_outside_the_file_is_refused(int field, uint value) =>
        Assert.Equal(KernelDiagnosticCodes.BzImagePayloadOutsideFile, Refuse(s_file.With32(field, value)).Code);

    [Fact]
    public void A_program_that_only_has_the_header_is_told_from_a_damaged_kernel()
    {
        // memtest86+ of Debian: HdrS, protocol 2.12, both payload fields 0.
        PatchDiagnostic error = Refuse(s_file.With32(0x248, 0).With32(0x24c, 0));
        Assert.Equal(KernelDiagnosticCodes.BzImageBadHeader, error.Code);
        Assert.Contains("names no compressed kernel", error.Message, StringComparison.Ordinal);
        Assert.Contains("memtest86+", error.Help, StringComparison.Ordinal);
    }

    [Fact]
    public void The_payload_of_a_shorter_file_is_refused()
    {
        Assert.True(BzImage.TryRead(s_file, out BzImage? image, out _));
        Assert.Throws<ArgumentException>(() => image.GetPayload(new byte[100]));
    }

    private static byte[] With8(byte[] bytes, int offset, byte value)
    {
        byte[] copy = [.. bytes];
        copy[offset] = value;
        return copy;
    }

    private static PatchDiagnostic Refuse(byte[] file)
    {
        Assert.False(BzImage.TryRead(file, out _, out PatchDiagnostic? error));
        return error;
    }
}
