using System.Buffers.Binary;
using System.Collections.Concurrent;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Boot;

public sealed class PayloadDecompressorTests
{
    private static readonly byte[] s_kernel = TestBzImage.Kernel(2_200_000);
    private static readonly UnpackLimits s_programs = new() { UsePrograms = true };
    private static readonly UnpackLimits s_inProcess = new() { ProgramSearchPath = "" };
    private static readonly UnpackLimits[] s_ways = [new UnpackLimits(), s_programs];
    private static readonly ConcurrentDictionary<PayloadCompression, byte[]> s_packed = new();

    [Theory]
    [MemberData(nameof(Compressors.External), MemberType = typeof(Compressors))]
    [InlineData(nameof(PayloadCompression.Gzip))]
    public void What_was_packed_is_unpacked_with_and_without_an_announced_size(string packing)
    {
        PayloadCompression compression = Enum.Parse<PayloadCompression>(packing);
        byte[] packed = Packed(compression);
        Assert.Equal(compression, PayloadDecompressor.Detect(packed));
        foreach (UnpackLimits limits in s_ways)
        {
            Assert.Equal(s_kernel, Unpack(packed, compression, s_kernel.Length, limits).ToArray());
            Assert.Equal(s_kernel, Unpack(packed, compression, null, limits).ToArray());
        }
    }

    [Theory]
    [MemberData(nameof(Compressors.External), MemberType = typeof(Compressors))]
    [InlineData(nameof(PayloadCompression.Gzip))]
    public void More_or_fewer_bytes_than_announced_are_refused(string packing)
    {
        PayloadCompression compression = Enum.Parse<PayloadCompression>(packing);
        byte[] packed = Packed(compression);
        foreach (UnpackLimits limits in s_ways)
        {
            PatchDiagnostic more = Refuse(packed, compression, s_kernel.Length - 1, limits);
            Assert.Equal(KernelDiagnosticCodes.PayloadSizeMismatch, more.Code);
            Assert.StartsWith("more than", more.Found, StringComparison.Ordinal);
            PatchDiagnostic fewer = Refuse(packed, compression, s_kernel.Length + 1, limits);
            Assert.Equal(KernelDiagnosticCodes.PayloadSizeMismatch, fewer.Code);
            Assert.Equal($"{s_kernel.Length} bytes", fewer.Found);
        }
    }

    [Theory]
    [MemberData(nameof(Compressors.External), MemberType = typeof(Compressors))]
    [InlineData(nameof(PayloadCompression.Gzip))]
    public void Data_that_expands_without_end_is_stopped_at_the_limit(string packing)
    {
        PayloadCompression compression = Enum.Parse<PayloadCompression>(packing);
        // 24 MiB of zeros pack into a few kilobytes; only the 16 MiB that are allowed at any ratio are taken.
        byte[] packed = Compressors.Compress(compression, new byte[24 << 20]);
        foreach (UnpackLimits limits in s_ways)
        {
            PatchDiagnostic error = Refuse(packed, compression, null, limits with { MaxExpansion = 1 });
            Assert.Equal(KernelDiagnosticCodes.PayloadTooLarge, error.Code);
            Assert.Contains(nameof(UnpackLimits.MaxExpansion), error.Help, StringComparison.Ordinal);
        }
    }

    [Theory]
    [MemberData(nameof(Compressors.External), MemberType = typeof(Compressors))]
    public void Damaged_data_is_refused_with_what_the_program_says(string packing)
    {
        PayloadCompression compression = Enum.Parse<PayloadCompression>(packing);
        byte[] packed = Packed(compression);
        PatchDiagnostic cut = Refuse(packed[..(packed.Length / 2)], compression, s_kernel.Length, s_programs);
        Assert.Equal(KernelDiagnosticCodes.PayloadCorrupt, cut.Code);
        Assert.Contains("exit code", cut.Found, StringComparison.Ordinal);
    }

    // Five kinds of damage, a new seed each run. Bytes that are not those packed are given for none that has a checksum.
    [Theory]
    [InlineData(nameof(PayloadCompression.Xz), true)]
    [InlineData(nameof(PayloadCompression.Zstd), true)]
    [InlineData(nameof(PayloadCompression.Lz4), false)]
    [InlineData(nameof(PayloadCompression.Lzma), false)]
    [InlineData(nameof(PayloadCompression.Bzip2), true)]
    public void Damaged_data_is_refused_in_the_process_whatever_its_decoder_throws(string packing, bool isChecked)
    {
        PayloadCompression compression = Enum.Parse<PayloadCompression>(packing);
        byte[] small = s_kernel[..40_000];
        byte[] packed = Compressors.Compress(compression, small);
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        for (int i = 0; i < 400; i++)
        {
            byte[] damaged = (i % 5) switch
            {
                0 => packed[..random.Next(6, packed.Length)],
                1 => [.. packed, .. new byte[random.Next(1, 9)]],
                2 => [.. packed.AsSpan(0, 6), .. RandomBytes(random, random.Next(400))],
                _ => Flipped(packed, random, i % 5 - 2),
            };
            if (PayloadDecompressor.TryDecompress(damaged, compression, small.Length, s_inProcess, out Memory<byte> unpacked, out PatchDiagnostic? error))
            {
                Assert.False(isChecked && !unpacked.Span.SequenceEqual(small), $"seed {seed}, case {i}: other bytes");
                Assert.False(i % 5 < 2, $"seed {seed}, case {i}: a stream that is cut, or does not end where it ends");
            }
            else
            {
                Assert.Contains(error.Code, (string[])[
                    KernelDiagnosticCodes.PayloadCorrupt, KernelDiagnosticCodes.PayloadSizeMismatch, KernelDiagnosticCodes.PayloadTooLarge]);
            }
        }
    }

    // Calls from end to end, so that one lies across whatever boundary a decoder reads to, and the filter for x86 code has work there.
    [Fact]
    public void Xz_is_unpacked_in_the_process_where_its_program_is_missing()
    {
        byte[] code = new byte[3_000_000];
        for (int at = 0; at + 5 <= code.Length; at += 5)
        {
            code[at] = 0xe8;
            BinaryPrimitives.WriteInt32LittleEndian(code.AsSpan(at + 1), 0x10000 + (at * 37 % 0x7fff));
        }

        byte[] packed = Compressors.Compress(PayloadCompression.Xz, code);
        var nowhere = new UnpackLimits { ProgramSearchPath = "" };
        Assert.Equal(code, Unpack(packed, PayloadCompression.Xz, code.Length, nowhere).ToArray());
        packed[^40] ^= 1; // the checksum, or what is before it
        Assert.Equal(KernelDiagnosticCodes.PayloadCorrupt, Refuse(packed, PayloadCompression.Xz, code.Length, nowhere).Code);
        Assert.Equal(KernelDiagnosticCodes.DecompressorMissing, Refuse(packed, PayloadCompression.Xz, null, nowhere).Code);
    }

    [Fact]
    public void A_window_that_no_kernel_has_is_refused_before_it_is_allocated()
    {
        // LZMA's header: properties, a window of 4 GiB less one, size. xz: stream header, then a block of one filter, LZMA2 with the code 40.
        byte[] lzma = [0x5d, 0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        byte[] xz = [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0, 1, 0x69, 0x22, 0xde, 0x36, 2, 0, 0x21, 1, 40, 0, 0, 0, 0, 0, 0, 0];
        Assert.Equal("a window of 4294967295 bytes", Refuse(lzma, PayloadCompression.Lzma, 1000).Found);
        Assert.Equal("a window of 4294967295 bytes", Refuse(xz, PayloadCompression.Xz, 1000, s_inProcess).Found);
        xz[16] = 31; // 96 MiB << 1: (2 | 1) << 26
        Assert.DoesNotContain("window", Refuse(xz, PayloadCompression.Xz, 1000, s_inProcess).Found, StringComparison.Ordinal);
    }

    [Fact]
    public void The_time_limit_holds_in_the_process_too()
    {
        byte[] packed = TestBzImage.Gzip(s_kernel);
        PatchDiagnostic error = Refuse(packed, PayloadCompression.Gzip, s_kernel.Length, new UnpackLimits { TimeLimit = TimeSpan.FromTicks(1) });
        Assert.Equal(KernelDiagnosticCodes.DecompressorTimeout, error.Code);
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
        var nowhere = new UnpackLimits { UsePrograms = true, ProgramSearchPath = "" };
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
        PatchDiagnostic error = Refuse(new byte[100], compression, 1000, new UnpackLimits { UsePrograms = true, ProgramSearchPath = empty.Path });
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
            Refuse(new byte[100], PayloadCompression.Xz, 1000, new UnpackLimits { UsePrograms = true, ProgramSearchPath = $"{relative}:." }).Code);
    }

    [Fact]
    public void A_program_that_never_ends_is_killed_at_the_time_limit()
    {
        Require.Tool("sh");
        Require.Tool("sleep");
        using var folder = new TestFolder();
        folder.Program("xz", $"#!/bin/sh\nsleep 1000\n");
        var options = new UnpackLimits { UsePrograms = true, ProgramSearchPath = folder.Path, TimeLimit = TimeSpan.FromMilliseconds(300) };
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
            new byte[1 << 20], PayloadCompression.Xz, 100_000, new UnpackLimits { UsePrograms = true, ProgramSearchPath = folder.Path });
        Assert.Equal(KernelDiagnosticCodes.PayloadSizeMismatch, error.Code);
    }

    [Fact]
    public void A_file_that_cannot_run_is_reported()
    {
        using var folder = new TestFolder();
        folder.Program("xz", "\u007fELF, but no more");
        PatchDiagnostic error = Refuse(new byte[100], PayloadCompression.Xz, 1000, new UnpackLimits { UsePrograms = true, ProgramSearchPath = folder.Path });
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
        var options = new UnpackLimits { UsePrograms = true, ProgramSearchPath = folder.Path };
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
                packed, PayloadCompression.Xz, s_kernel.Length, new UnpackLimits { UsePrograms = true, ProgramSearchPath = folder.Path }, out _,
                out PatchDiagnostic? error), error?.ToString());
        }
        finally
        {
            Environment.SetEnvironmentVariable("XZ_OPT", null);
        }
    }

    private static byte[] RandomBytes(Random random, int length)
    {
        byte[] bytes = new byte[length];
        random.NextBytes(bytes);
        return bytes;
    }

    private static byte[] Flipped(byte[] bytes, Random random, int count)
    {
        byte[] flipped = [.. bytes];
        for (int i = 0; i < count; i++)
        {
            flipped[random.Next(6, bytes.Length)] ^= (byte)(1 << random.Next(8));
        }

        return flipped;
    }

    // Compressing takes longer than all the rest, so it is done once for each compression.
    private static byte[] Packed(PayloadCompression compression) =>
        s_packed.GetOrAdd(compression, static c => Compressors.Compress(c, s_kernel));

    private static Memory<byte> Unpack(byte[] packed, PayloadCompression compression, long? announced, UnpackLimits limits)
    {
        Assert.True(PayloadDecompressor.TryDecompress(
            packed, compression, announced, limits, out Memory<byte> unpacked, out PatchDiagnostic? error), error?.ToString());
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
