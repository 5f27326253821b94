using System.Collections.Concurrent;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Boot;

public sealed class PayloadDecompressorTests
{
    private static readonly byte[] s_kernel = TestBzImage.Kernel(2_200_000);
    private static readonly ConcurrentDictionary<PayloadCompression, byte[]> s_packed = new();

    [Theory]
    [MemberData(nameof(Compressors.External), MemberType = typeof(Compressors))]
    [InlineData(nameof(PayloadCompression.Gzip))]
    public void What_was_packed_is_unpacked_with_and_without_an_announced_size(string packing)
    {
        PayloadCompression compression = Enum.Parse<PayloadCompression>(packing);
        byte[] packed = Packed(compression);
        Assert.Equal(compression, PayloadDecompressor.Detect(packed));
        Assert.Equal(s_kernel, Unpack(packed, compression, s_kernel.Length).ToArray());
        Assert.Equal(s_kernel, Unpack(packed, compression, null).ToArray());
    }

    [Theory]
    [MemberData(nameof(Compressors.External), MemberType = typeof(Compressors))]
    [InlineData(nameof(PayloadCompression.Gzip))]
    public void More_or_fewer_bytes_than_announced_are_refused(string packing)
    {
        PayloadCompression compression = Enum.Parse<PayloadCompression>(packing);
        byte[] packed = Packed(compression);
        PatchDiagnostic more = Refuse(packed, compression, s_kernel.Length - 1);
        Assert.Equal(KernelDiagnosticCodes.PayloadSizeMismatch, more.Code);
        Assert.StartsWith("more than", more.Found, StringComparison.Ordinal);
        PatchDiagnostic fewer = Refuse(packed, compression, s_kernel.Length + 1);
        Assert.Equal(KernelDiagnosticCodes.PayloadSizeMismatch, fewer.Code);
        Assert.Equal($"{s_kernel.Length} bytes", fewer.Found);
    }

    [Theory]
    [MemberData(nameof(Compressors.External), MemberType = typeof(Compressors))]
    [InlineData(nameof(PayloadCompression.Gzip))]
    public void Data_that_expands_without_end_is_stopped_at_the_limit(string packing)
    {
        PayloadCompression compression = Enum.Parse<PayloadCompression>(packing);
        // 24 MiB of zeros pack into a few kilobytes; only the 16 MiB that are allowed at any ratio are taken.
        byte[] packed = Compressors.Compress(compression, new byte[24 << 20]);
        PatchDiagnostic error = Refuse(packed, compression, null, new UnpackLimits { MaxExpansion = 1 });
        Assert.Equal(KernelDiagnosticCodes.PayloadTooLarge, error.Code);
        Assert.Contains(nameof(UnpackLimits.MaxExpansion), error.Help, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Compressors.External), MemberType = typeof(Compressors))]
    public void Damaged_data_is_refused_with_what_the_program_says(string packing)
    {
        PayloadCompression compression = Enum.Parse<PayloadCompression>(packing);
        byte[] packed = Packed(compression);
        PatchDiagnostic cut = Refuse(packed[..(packed.Length / 2)], compression, s_kernel.Length);
        Assert.Equal(KernelDiagnosticCodes.PayloadCorrupt, cut.Code);
        Assert.Contains("exit code", cut.Found, StringComparison.Ordinal);
    }

    [Fact]
    public void Damaged_gzip_data_is_refused()
    {
        byte[] packed = TestBzImage.Gzip(s_kernel);
        Assert.Contains(
            Refuse(packed[..(packed.Length / 2)], PayloadCompression.Gzip, s_kernel.Length).Code,
            (string[])[KernelDiagnosticCodes.PayloadCorrupt, KernelDiagnosticCodes.PayloadSizeMismatch]);
        byte[] wrongChecksum = [.. packed];
        wrongChecksum[^5] ^= 1;
        Assert.Equal(KernelDiagnosticCodes.PayloadCorrupt, Refuse(wrongChecksum, PayloadCompression.Gzip, s_kernel.Length).Code);
    }

    [Fact]
    public void An_announced_size_that_cannot_be_is_refused_before_anything_runs()
    {
        var nowhere = new UnpackLimits { ProgramSearchPath = "" };
        byte[] packed = new byte[1000];
        Assert.Equal(KernelDiagnosticCodes.PayloadTooLarge, Refuse(packed, PayloadCompression.Xz, uint.MaxValue, nowhere).Code);
        Assert.Equal(KernelDiagnosticCodes.PayloadTooLarge, Refuse(packed, PayloadCompression.Xz, (16 << 20) + 1, nowhere).Code);
        Assert.Equal(KernelDiagnosticCodes.PayloadSizeMismatch, Refuse(packed, PayloadCompression.Xz, 0, nowhere).Code);
        Assert.Equal(KernelDiagnosticCodes.DecompressorMissing, Refuse(packed, PayloadCompression.Xz, 16 << 20, nowhere).Code);
    }

    [Theory]
    [InlineData(nameof(PayloadCompression.Xz), "xz-utils")]
    [InlineData(nameof(PayloadCompression.Zstd), "zstd")]
    [InlineData(nameof(PayloadCompression.Lz4), "lz4")]
    [InlineData(nameof(PayloadCompression.Lzma), "xz-utils")]
    [InlineData(nameof(PayloadCompression.Bzip2), "bzip2")]
    [InlineData(nameof(PayloadCompression.Lzo), "lzop")]
    public void A_missing_program_is_named_with_its_package(string packing, string package)
    {
        PayloadCompression compression = Enum.Parse<PayloadCompression>(packing);
        using var empty = new TestFolder();
        PatchDiagnostic error = Refuse(new byte[100], compression, 1000, new UnpackLimits { ProgramSearchPath = empty.Path });
        Assert.Equal(KernelDiagnosticCodes.DecompressorMissing, error.Code);
        Assert.Contains($"apt install {package})", error.Help, StringComparison.Ordinal);
    }

    [Fact]
    public void A_program_beside_the_caller_or_in_a_relative_directory_is_not_run()
    {
        using var folder = new TestFolder();
        folder.Program("xz", $"#!/bin/sh\nexit 0\n");
        string relative = Path.GetRelativePath(Environment.CurrentDirectory, folder.Path);
        Assert.Equal(
            KernelDiagnosticCodes.DecompressorMissing,
            Refuse(new byte[100], PayloadCompression.Xz, 1000, new UnpackLimits { ProgramSearchPath = $"{relative}:." }).Code);
    }

    [Fact]
    public void A_program_that_never_ends_is_killed_at_the_time_limit()
    {
        Require.Tool("sh");
        Require.Tool("sleep");
        using var folder = new TestFolder();
        folder.Program("xz", $"#!/bin/sh\nsleep 1000\n");
        var options = new UnpackLimits { ProgramSearchPath = folder.Path, TimeLimit = TimeSpan.FromMilliseconds(300) };
        PatchDiagnostic error = Refuse(new byte[1 << 20], PayloadCompression.Xz, 1000, options);
        Assert.Equal(KernelDiagnosticCodes.DecompressorTimeout, error.Code);
    }

    [Fact]
    public void A_program_that_writes_without_end_is_killed_at_the_announced_size()
    {
        Require.Tool("sh");
        Require.Tool("yes");
        using var folder = new TestFolder();
        folder.Program("xz", $"#!/bin/sh\nexec yes\n");
        PatchDiagnostic error = Refuse(
            new byte[1 << 20], PayloadCompression.Xz, 100_000, new UnpackLimits { ProgramSearchPath = folder.Path });
        Assert.Equal(KernelDiagnosticCodes.PayloadSizeMismatch, error.Code);
    }

    [Fact]
    public void A_file_that_cannot_run_is_reported()
    {
        using var folder = new TestFolder();
        folder.Program("xz", "\u007fELF, but no more");
        PatchDiagnostic error = Refuse(new byte[100], PayloadCompression.Xz, 1000, new UnpackLimits { ProgramSearchPath = folder.Path });
        Assert.Equal(KernelDiagnosticCodes.DecompressorFailed, error.Code);
    }

    [Fact]
    public void Cancelling_kills_the_program()
    {
        Require.Tool("sh");
        Require.Tool("sleep");
        using var folder = new TestFolder();
        folder.Program("xz", $"#!/bin/sh\nsleep 1000\n");
        using var source = new CancellationTokenSource(TimeSpan.FromMilliseconds(300));
        var options = new UnpackLimits { ProgramSearchPath = folder.Path };
        Assert.ThrowsAny<OperationCanceledException>(
            () => PayloadDecompressor.TryDecompress(new byte[1 << 20], PayloadCompression.Xz, 1000, options, out _, out _, source.Token));
    }

    [Fact]
    public void Cancelling_stops_gzip()
    {
        using var source = new CancellationTokenSource();
        source.Cancel();
        byte[] packed = TestBzImage.Gzip(s_kernel);
        Assert.ThrowsAny<OperationCanceledException>(
            () => PayloadDecompressor.TryDecompress(packed, PayloadCompression.Gzip, s_kernel.Length, null, out _, out _, source.Token));
    }

    [Fact]
    public void Progress_rises_to_the_size()
    {
        var seen = new Recorder();
        byte[] packed = TestBzImage.Gzip(s_kernel);
        Assert.True(PayloadDecompressor.TryDecompress(
            packed, PayloadCompression.Gzip, s_kernel.Length, new UnpackLimits { Progress = seen }, out _, out _));
        Assert.True(seen.Values.Count >= 3);
        Assert.Equal(seen.Values.Order(), seen.Values);
        Assert.Equal(s_kernel.Length, seen.Values[^1]);
    }

    [Fact]
    public void Users_options_for_the_programs_do_not_matter()
    {
        Require.Tool("sh");
        byte[] packed = Packed(PayloadCompression.Xz);
        using var folder = new TestFolder();
        folder.Program("xz", $"#!/bin/sh\n[ -z \"$XZ_OPT$XZ_DEFAULTS\" ] || exit 9\nexec {Require.Tool("xz")} \"$@\"\n");
        Environment.SetEnvironmentVariable("XZ_OPT", "--memlimit-decompress=1");
        try
        {
            Assert.True(PayloadDecompressor.TryDecompress(
                packed, PayloadCompression.Xz, s_kernel.Length, new UnpackLimits { ProgramSearchPath = folder.Path }, out _,
                out PatchDiagnostic? error), error?.ToString());
        }
        finally
        {
            Environment.SetEnvironmentVariable("XZ_OPT", null);
        }
    }

    // Compressing takes longer than all the rest, so it is done once for each compression.
    private static byte[] Packed(PayloadCompression compression) =>
        s_packed.GetOrAdd(compression, static c => Compressors.Compress(c, s_kernel));

    private static Memory<byte> Unpack(byte[] packed, PayloadCompression compression, long? announced)
    {
        Assert.True(PayloadDecompressor.TryDecompress(
            packed, compression, announced, null, out Memory<byte> unpacked, out PatchDiagnostic? error), error?.ToString());
        return unpacked;
    }

    private static PatchDiagnostic Refuse(byte[] packed, PayloadCompression compression, long? announced, UnpackLimits? options = null)
    {
        Assert.False(PayloadDecompressor.TryDecompress(
            packed, compression, announced, options, out Memory<byte> unpacked, out PatchDiagnostic? error));
        Assert.True(unpacked.IsEmpty);
        Assert.NotNull(error.Help);
        return error;
    }

    private sealed class Recorder : IProgress<long>
    {
        public List<long> Values { get; } = [];

        public void Report(long value) => Values.Add(value);
    }
}
