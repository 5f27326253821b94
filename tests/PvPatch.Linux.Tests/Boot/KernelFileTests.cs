using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Boot;

public sealed class KernelFileTests
{
    private static readonly byte[] s_kernel = TestBzImage.Kernel();

    [Fact]
    public void An_elf_file_is_handed_back_as_it_is()
    {
        Assert.True(KernelFile.TryLoad(s_kernel, null, out LoadedKernelFile? kernel, out _));
        Assert.Equal(KernelFileKind.Elf, kernel.Kind);
        Assert.Equal(PayloadCompression.None, kernel.Compression);
        Assert.True(s_kernel.AsMemory().Equals(kernel.Image), "the same memory");
    }

    [Theory]
    [MemberData(nameof(Compressors.External), MemberType = typeof(Compressors))]
    [InlineData(nameof(PayloadCompression.Gzip))]
    public void A_bzimage_is_unpacked(string packing)
    {
        PayloadCompression compression = Enum.Parse<PayloadCompression>(packing);
        // What follows the ELF file stands for the relocations that a real one carries.
        byte[] content = [.. s_kernel, .. new byte[100]];
        byte[] stream = Compressors.Compress(compression, content);
        byte[] payload = compression == PayloadCompression.Gzip ? stream : TestBzImage.AppendSize(stream, content.Length);
        byte[] file = TestBzImage.Build(payload);

        Assert.True(KernelFile.TryLoad(file, null, out LoadedKernelFile? kernel, out PatchDiagnostic? error), error?.ToString());
        Assert.Equal(KernelFileKind.BzImage, kernel.Kind);
        Assert.Equal(compression, kernel.Compression);
        Assert.Equal(file.Length, kernel.FileSize);
        Assert.Equal(TestBzImage.Version, kernel.BootHeader!.KernelVersion);
        Assert.Equal(content, kernel.Image.ToArray());
        Assert.Equal(s_kernel.Length, ElfImage.Read(kernel.Image).EndOfFileContent);
    }

    [Theory]
    [MemberData(nameof(Compressors.External), MemberType = typeof(Compressors))]
    [InlineData(nameof(PayloadCompression.Gzip))]
    public void A_compressed_elf_file_is_unpacked(string packing)
    {
        PayloadCompression compression = Enum.Parse<PayloadCompression>(packing);
        Assert.True(KernelFile.TryLoad(Compressors.Compress(compression, s_kernel), null, out LoadedKernelFile? kernel,
            out PatchDiagnostic? error), error?.ToString());
        Assert.Equal(KernelFileKind.CompressedElf, kernel.Kind);
        Assert.Equal(compression, kernel.Compression);
        Assert.Equal(s_kernel, kernel.Image.ToArray());
    }

    [Fact]
    public void A_file_is_read_from_disk_and_named_in_errors()
    {
        using var folder = new TestFolder();
        string path = folder.File("vmlinuz", TestBzImage.Build(TestBzImage.Gzip(s_kernel)));
        Assert.True(KernelFile.TryLoad(path, null, out LoadedKernelFile? kernel, out _));
        Assert.Equal(s_kernel, kernel.Image.ToArray());

        string text = folder.File("notes.txt", [.. "Dear reader"u8]);
        Assert.False(KernelFile.TryLoad(text, null, out _, out PatchDiagnostic? error));
        Assert.Equal(KernelDiagnosticCodes.NotAKernel, error.Code);
        Assert.Equal(text, error.Source);
        Assert.Equal("44 65 61 72 20 72 65 61 64 65 72", error.Found);

        // A program for EFI, as a hypervisor's .efi is: a DOS header that no boot header follows.
        Assert.False(KernelFile.TryLoad(folder.File("xen.efi", [(byte)'M', (byte)'Z', .. new byte[0x400]]), null, out _, out error));
        Assert.Equal(KernelDiagnosticCodes.NotAKernel, error.Code);
        Assert.Contains("program for EFI", error.Found, StringComparison.Ordinal);
        Assert.Contains(".linux", error.Help, StringComparison.Ordinal);
    }

    [Fact]
    public void Files_that_cannot_be_read_are_reported()
    {
        using var folder = new TestFolder();
        Assert.False(KernelFile.TryLoad(folder.File("missing"), null, out _, out PatchDiagnostic? missing));
        Assert.Equal(KernelDiagnosticCodes.FileUnreadable, missing.Code);
        Assert.False(KernelFile.TryLoad(folder.Path, null, out _, out PatchDiagnostic? directory));
        Assert.Equal((KernelDiagnosticCodes.FileUnreadable, "it is a directory"), (directory.Code, directory.Found));
        Assert.False(KernelFile.TryLoad(folder.File("empty", []), null, out _, out PatchDiagnostic? empty));
        Assert.Equal(KernelDiagnosticCodes.NotAKernel, empty.Code);
        Assert.Equal("nothing", empty.Found);
    }

    [Fact]
    public void A_stream_is_read_to_its_end()
    {
        byte[] file = TestBzImage.Kernel(3_000_000);
        using var stream = new OneWayStream(file);
        Assert.True(KernelFile.TryLoad(stream, null, out LoadedKernelFile? kernel, out PatchDiagnostic? error), error?.ToString());
        Assert.Equal(file, kernel.Image.ToArray());
    }

    [Fact]
    public void A_stream_without_end_is_left_at_the_limit()
    {
        using var kernel = new OneWayStream(s_kernel) { Endless = true };
        Assert.False(KernelFile.TryLoad(kernel, new UnpackLimits { MaxImageSize = 20 << 20 }, out _, out PatchDiagnostic? error));
        Assert.Equal(KernelDiagnosticCodes.FileTooLarge, error.Code);

        using var zeros = new OneWayStream([]) { Endless = true };
        Assert.False(KernelFile.TryLoad(zeros, null, out _, out error));
        Assert.Equal(KernelDiagnosticCodes.NotAKernel, error.Code);
        Assert.True(zeros.Position < 10_000, "a stream that is no kernel is not read on");
    }

    [Fact]
    public void A_payload_that_is_no_elf_file_is_refused()
    {
        byte[] packed = TestBzImage.Gzip(new byte[1000]);
        Assert.Equal(KernelDiagnosticCodes.PayloadNotElf, Refuse(packed).Code);
        PatchDiagnostic error = Refuse(TestBzImage.Build(packed));
        Assert.Equal(KernelDiagnosticCodes.PayloadNotElf, error.Code);
        Assert.Equal(TestBzImage.PayloadAt, error.FileOffset);
    }

    [Fact]
    public void An_unknown_compression_is_shown()
    {
        PatchDiagnostic error = Refuse(TestBzImage.Build([0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0]));
        Assert.Equal(KernelDiagnosticCodes.PayloadUnknownCompression, error.Code);
        Assert.Equal(TestBzImage.PayloadAt, error.FileOffset);
        Assert.StartsWith("de ad be ef", error.Found, StringComparison.Ordinal);
    }

    [Fact]
    public void A_bzimage_that_announces_too_much_is_refused()
    {
        byte[] gzip = TestBzImage.Gzip(s_kernel);
        Assert.Equal(KernelDiagnosticCodes.PayloadTooLarge, Refuse(TestBzImage.Build(gzip.With32(gzip.Length - 4, uint.MaxValue))).Code);
    }

    private static PatchDiagnostic Refuse(byte[] file)
    {
        Assert.False(KernelFile.TryLoad(file, null, out LoadedKernelFile? kernel, out PatchDiagnostic? error));
        Assert.Null(kernel);
        return error;
    }

    /// <summary>A stream that knows no length, hands out odd pieces, and may go on with zeros for ever.</summary>
    private sealed class OneWayStream(byte[] bytes) : Stream
    {
        private long _position;

        public bool Endless { get; init; }

        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => false;

        public override long Length => throw new NotSupportedException();

        public override long Position
        {
            get => _position;
            set => throw new NotSupportedException();
        }

        public override int Read(byte[] buffer, int offset, int count)
        {
            int wanted = Math.Min(count, 77_777);
            int rest = (int)Math.Max(0, Math.Min(wanted, bytes.Length - _position));
            if (rest > 0)
            {
                Array.Copy(bytes, _position, buffer, offset, rest);
            }
            else if (Endless)
            {
                Array.Clear(buffer, offset, wanted);
                rest = wanted;
            }

            _position += rest;
            return rest;
        }

        public override void Flush()
        {
        }

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
    }
}
