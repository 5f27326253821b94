using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Boot;

/// <summary>A bzImage of which one field at a time says that a part lies where another is, or outside of what must hold it.</summary>
public sealed class BzImageOverlapTests
{
    private const int Setup = (TestBzImage.SetupSectors + 1) * 512;
    private const int PayloadLength = 0x800;
    private const int Tail = TestBzImage.PayloadOffset + PayloadLength; // behind the payload, from the kernel's start
    private const int Kernel = Tail + TestBzImage.TailLength;
    private const int Signature = Setup + Kernel;
    private const int Text = TestBzImage.SectionsAt + 40;
    private const int Data = TestBzImage.SectionsAt + 80;

    private static readonly byte[] s_file = TestBzImage.Build(new byte[PayloadLength]);

    [Fact]
    public void The_layout_of_the_tests_is_accepted()
    {
        Assert.Equal(Signature + 0x10, s_file.Length);
        Accept(s_file);
        Accept([.. s_file, 1, 2, 3]); // what no loader reads

        // Without a stub nothing of it counts.
        byte[] plain = s_file.With16(0, 0x05ea);
        Accept(plain.With32(Text + 20, 0xffffffff));
    }

    [Theory]
    [InlineData("the kernel ends beyond the file", 0x1f4, (Kernel / 16) + 2, 0x1f4, "The kernel lies outside the file")]
    [InlineData("the size of the kernel overflows 32 bits", 0x1f4, 0xffffffff, 0x1f4, "The kernel lies outside the file")]
    [InlineData("no kernel", 0x1f4, 0, 0x248, "The compressed kernel lies outside the kernel")]
    [InlineData("the kernel ends inside the payload", 0x1f4, (Tail / 16) - 1, 0x248, "The compressed kernel lies outside the kernel")]
    [InlineData("less memory than bytes", 0x260, Kernel - 1, 0x260, "The kernel asks for less memory than it has bytes")]
    [InlineData("no memory", 0x260, 0, 0x260, "The kernel asks for less memory than it has bytes")]
    [InlineData("kernel_info at the payload's last byte", 0x268, Tail - 1, 0x268,
        "The block kernel_info and the compressed kernel share bytes of the file")]
    [InlineData("kernel_info at the kernel's end", 0x268, Kernel - 11, 0x268, "The block kernel_info lies outside the kernel")]
    [InlineData("kernel_info beyond the file", 0x268, 0xffffffff, 0x268, "The block kernel_info lies outside the kernel")]
    [InlineData("a length of kernel_info beyond the kernel", Setup + Tail + 0x228, 0x10000, 0x268,
        "The block kernel_info lies outside the kernel")]
    [InlineData("the 32-bit entry in the payload", 0x264, Tail - 1, 0x264,
        "An entry for EFI and the compressed kernel share bytes of the file")]
    [InlineData("the 64-bit entry in the payload", 0x264, 0, 0x264, "An entry for EFI and the compressed kernel share bytes of the file")]
    [InlineData("the 64-bit entry behind the kernel", 0x264, Kernel - 0x200, 0x264, "An entry for EFI lies outside the kernel")]
    [InlineData("the 32-bit entry behind the file", 0x264, 0xffffffff, 0x264, "An entry for EFI lies outside the kernel")]
    [InlineData("EFI headers over the boot header", 0x3c, 0x1da, 0x3c, "The headers of the EFI stub share bytes with the boot header")]
    [InlineData("EFI headers behind the boot header", 0x3c, 0x300, 0x3c, "The headers of the EFI stub share bytes with the boot header")]
    [InlineData("a long optional header", TestBzImage.PeAt + 0x14, 0x1000, 0x3c,
        "The headers of the EFI stub share bytes with the boot header")]
    [InlineData("many sections", TestBzImage.PeAt + 4, 0xffff8664, 0x3c, "The headers of the EFI stub share bytes with the boot header")]
    [InlineData("a section beyond the file", Data + 20, 0x100000, Data, ".data lies outside the file")]
    [InlineData("a section longer than the file", Data + 16, 0xffffffff, Data, ".data lies outside the file")]
    [InlineData("a section that cuts the payload", Text + 16, 0x200, Text, ".text has only a part of the compressed kernel")]
    [InlineData("a section that starts in the payload", Data + 20, Setup + Tail - 1, Data,
        ".data has only a part of the compressed kernel")]
    [InlineData("a payload in no section", Text + 16, 0, 0x248, "No section of the EFI stub has the compressed kernel")]
    [InlineData("two sections over the same bytes", Data + 20, Setup + Kernel - 0x41, Data, ".data and .text share bytes of the file")]
    [InlineData("a section over the setup code", Data + 20, 0x240, Data, ".data and .setup share bytes of the file")]
    [InlineData("two sections at the same addresses", Data + 12, Setup + Kernel - 0x41, Data, ".data and .text share addresses")]
    [InlineData("a section in whose memory another lies", TestBzImage.SectionsAt + 8, 0x10000, Text, ".text and .setup share addresses")]
    [InlineData("a signature beyond the file", TestBzImage.SignatureAt, 0x100000, TestBzImage.SignatureAt,
        "The signature lies outside the file")]
    [InlineData("a signature over the kernel", TestBzImage.SignatureAt, Signature - 1, TestBzImage.SignatureAt,
        "The signature and the kernel share bytes of the file")]
    [InlineData("a signature over the setup code", TestBzImage.SignatureAt, 0x100, TestBzImage.SignatureAt,
        "The signature and the kernel share bytes of the file")]
    public void One_wrong_field_is_refused(string what, int at, uint value, int offset, string message)
    {
        byte[] file = s_file.With32(at, value);
        if (at == 0x3c)
        {
            "PE\0\0"u8.CopyTo(file.AsSpan((int)value));
        }

        Assert.False(BzImage.TryRead(file, out _, out PatchDiagnostic? error), what);
        Assert.Equal((KernelDiagnosticCodes.BzImageOverlap, message, (long?)offset), (error.Code, error.Message, error.FileOffset));
        Assert.False(string.IsNullOrEmpty(error.Found) || string.IsNullOrEmpty(error.Expected));
    }

    [Theory]
    [InlineData("memory of exactly the kernel's size", 0x260, Kernel)]
    [InlineData("no kernel_info", 0x268, 0)]
    [InlineData("kernel_info right behind the payload", 0x268, Tail)]
    [InlineData("entries right behind the payload, and at the kernel's end", 0x264, Kernel - 0x201)]
    [InlineData("no PE header", 0x3c, 0)]
    [InlineData("an offset of PE headers that are not there", 0x3c, 0xffffffff)]
    [InlineData("a section that is only memory", Data + 16, 0)]
    [InlineData("no signature", TestBzImage.SignatureAt + 4, 0)]
    [InlineData("a size rounded up", 0x1f4, (Kernel / 16) + 1)]
    public void A_field_at_its_limit_is_accepted(string what, int at, uint value)
    {
        byte[] file = s_file.With32(at, value);
        if (what == "a size rounded up")
        {
            file = file.With32(TestBzImage.SignatureAt + 4, 0).With32(0x260, (uint)Kernel + 16)[..(Signature + 1)];
        }

        Accept(file);
    }

    [Theory]
    [InlineData(0x1f1, true)]
    [InlineData(0x1f2, false)]
    public void EFI_headers_end_where_the_boot_header_starts(int end, bool isAccepted)
    {
        const int Length = Data + 40 - TestBzImage.PeAt;
        byte[] file = s_file.With32(0x3c, (uint)(end - Length));
        s_file.AsSpan(TestBzImage.PeAt, Length).CopyTo(file.AsSpan(end - Length));
        file[0x1f1] = TestBzImage.SetupSectors;
        Assert.Equal(isAccepted, BzImage.TryRead(file, out _, out PatchDiagnostic? error));
        Assert.Equal(isAccepted ? null : KernelDiagnosticCodes.BzImageOverlap, error?.Code);
    }

    [Fact]
    public void An_entry_that_nothing_calls_is_not_looked_at()
    {
        byte[] file = s_file.With32(0x264, Tail - 0x200); // the 64-bit entry behind the payload; the 32-bit one would be in it
        Assert.False(BzImage.TryRead(file, out _, out _));
        Accept(file.With16(0x236, 0x8));
        Accept(s_file.With32(0x264, Tail - 1).With16(0x236, 0));
    }

    [Fact]
    public void The_first_kernels_with_a_stub_have_one_section_over_the_whole_file()
    {
        byte[] file = s_file.With16(TestBzImage.PeAt + 6, 1).With32(TestBzImage.SectionsAt + 8, Signature)
            .With32(TestBzImage.SectionsAt + 12, 0).With32(TestBzImage.SectionsAt + 16, Signature).With32(TestBzImage.SectionsAt + 20, 0);
        Accept(file);
        PatchDiagnostic error = Refuse(file.With32(TestBzImage.SectionsAt + 16, Signature + 1));
        Assert.Equal("The signature and .setup share bytes of the file", error.Message);
    }

    [Fact]
    public void The_name_of_a_section_is_printable_in_messages()
    {
        byte[] file = s_file.With32(Data, 0x0a1b6d41).With32(Data + 20, 0x100000);
        Assert.Equal("Am??a lies outside the file", Refuse(file).Message);
    }

    private static void Accept(byte[] file) => Assert.True(BzImage.TryRead(file, out _, out PatchDiagnostic? error), error?.ToString());

    private static PatchDiagnostic Refuse(byte[] file)
    {
        Assert.False(BzImage.TryRead(file, out _, out PatchDiagnostic? error));
        return error;
    }
}
