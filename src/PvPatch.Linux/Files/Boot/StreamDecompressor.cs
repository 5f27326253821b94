using System.Buffers;
using System.Buffers.Binary;
using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using System.IO.Compression;
using System.Runtime.InteropServices;
using K4os.Compression.LZ4;
using SharpCompress.Compressors.BZip2;
using SharpCompress.Compressors.LZMA;
using SharpCompress.Compressors.Xz;
using ZstdSharp.Unsafe;

namespace PvPatch.Linux.Files;

/// <summary>Unpacks in this process: gzip, xz, zstd, lz4, lzma and bzip2.</summary>
/// <remarks>
/// What the decoders allocate is bounded by what a stream may say of its window; output is bounded by the <see cref="OutputBuffer"/> and
/// time by the limit, both asked between pieces. Whatever a decoder throws at damaged data is a finding.
/// </remarks>
internal static class StreamDecompressor
{
    // Kernels use windows of 128 MiB at most.
    private const long MaxWindow = 256L << 20;
    private const int MaxWindowLog = 28;
    private const int Lz4Block = 8 << 20; // the legacy format's blocks

    public static bool TryRun(
        CompressionFormat format, ReadOnlyMemory<byte> input, OutputBuffer output, UnpackLimits options,
        [NotNullWhen(false)] out PatchDiagnostic? error, CancellationToken cancellationToken)
    {
        // Memory that is no array (a mapped file) is copied: the decoders read streams only, and compressed kernels are small.
        ArraySegment<byte> array = MemoryMarshal.TryGetArray(input, out ArraySegment<byte> segment) ? segment : input.ToArray();
        if (WindowOf(format.Compression, array) is long window and > MaxWindow)
        {
            error = Corrupt(format, $"a window of {window} bytes", $"at most {MaxWindow} bytes");
            return false;
        }

        using var compressed = new MemoryStream(array.Array!, array.Offset, array.Count, writable: false);
        try
        {
            using Stream stream = Open(format.Compression, compressed, array, options.OutputLimit(input.Length));
            if (!TryDrain(format, stream, output, input.Length, options, out error, cancellationToken))
            {
                return false;
            }

            // gzip's decoder reads ahead, and checks for itself what follows.
            if (format.Compression != PayloadCompression.Gzip && compressed.Position != compressed.Length)
            {
                error = Corrupt(format, $"{compressed.Length - compressed.Position} bytes behind its end", "nothing");
                return false;
            }

            return true;
        }
        catch (Exception exception) when (exception is not OperationCanceledException)
        {
            // Whatever it is: the decoders say "damaged" by a dozen types, IndexOutOfRangeException and OutOfMemoryException among them.
            error = Corrupt(format, exception.Message, $"a whole {format.Compression} stream");
            return false;
        }
    }

    private static Stream Open(PayloadCompression compression, MemoryStream compressed, ArraySegment<byte> bytes, long limit) => compression switch
    {
        PayloadCompression.Gzip => new GZipStream(compressed, CompressionMode.Decompress),
        PayloadCompression.Xz => new XZStream(compressed),
        PayloadCompression.Zstd => OpenZstd(compressed),
        PayloadCompression.Lzma => OpenLzma(compressed, bytes, limit),
        PayloadCompression.Bzip2 => BZip2Stream.Create(compressed, SharpCompress.Compressors.CompressionMode.Decompress, false, true, false),
        PayloadCompression.Lz4 => new Lz4LegacyStream(compressed),
        _ => throw new UnreachableException(),
    };

    private static ZstdSharp.DecompressionStream OpenZstd(Stream compressed)
    {
        var stream = new ZstdSharp.DecompressionStream(compressed, 0, true, false);
        stream.SetParameter(ZSTD_dParameter.ZSTD_d_windowLogMax, MaxWindowLog);
        return stream;
    }

    // The old format: five bytes of properties, the window the last four of them, the size as eight bytes (-1: a mark ends it), the data.
    // A window larger than all that may be unpacked is never looked back into that far, so no more of it is allocated.
    private static LzmaStream OpenLzma(MemoryStream compressed, ReadOnlySpan<byte> bytes, long limit)
    {
        byte[] properties = bytes[..5].ToArray();
        uint window = BinaryPrimitives.ReadUInt32LittleEndian(properties.AsSpan(1));
        BinaryPrimitives.WriteUInt32LittleEndian(properties.AsSpan(1), (uint)Math.Min(window, limit));
        long size = BinaryPrimitives.ReadInt64LittleEndian(bytes[5..]);
        compressed.Position = 13;
        return LzmaStream.Create(properties, compressed, -1, size, false);
    }

    private static bool TryDrain(
        CompressionFormat format, Stream stream, OutputBuffer output, long compressedLength, UnpackLimits options,
        [NotNullWhen(false)] out PatchDiagnostic? error, CancellationToken cancellationToken)
    {
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (Stopwatch.GetElapsedTime(start) > options.TimeLimit)
            {
                error = PatchDiagnostic.Error(KernelDiagnosticCodes.DecompressorTimeout, "Unpacking did not finish in time") with
                {
                    Found = $"more than {options.TimeLimit.TotalSeconds} s",
                    Help = $"On a slow machine raise {nameof(UnpackLimits.TimeLimit)}; else the file is damaged",
                };
                return false;
            }

            // SharpCompress's filter for x86 code (0.50.8) loses its place between two reads of xz: the bytes come out wrong, as the
            // block's checksum then says. Read at once they are right.
            int count = stream.Read(output.GetRoom(format.Compression == PayloadCompression.Xz).Span);
            if (count == 0)
            {
                error = null;
                return true;
            }

            if (!output.TryAdvance(count, compressedLength, out error))
            {
                return false;
            }
        }
    }

    /// <summary>What a stream says of its window, where its decoder would allocate that.</summary>
    private static long? WindowOf(PayloadCompression compression, ReadOnlySpan<byte> bytes) => compression switch
    {
        PayloadCompression.Lzma when bytes.Length >= 13 => BinaryPrimitives.ReadUInt32LittleEndian(bytes[1..]),
        PayloadCompression.Xz => XzWindow(bytes),
        _ => null,
    };

    // Stream header of 12 bytes; then the block's header: its length in words, flags, sizes, and the filters: id, length of the properties,
    // properties. LZMA2 (id 0x21) has one byte: (2 | odd) << (half + 11). In variable-length numbers seven bits a byte, low ones first.
    private static long? XzWindow(ReadOnlySpan<byte> bytes)
    {
        const int BlockStart = 12;
        const byte Lzma2 = 0x21;
        if (bytes.Length <= BlockStart + 2)
        {
            return null;
        }

        int end = Math.Min(bytes.Length, BlockStart + (bytes[BlockStart] + 1) * 4);
        int flags = bytes[BlockStart + 1];
        int at = BlockStart + 2;
        for (int sizes = (flags >> 6 & 1) + (flags >> 7); sizes > 0 && at < end; at++)
        {
            sizes -= bytes[at] < 0x80 ? 1 : 0;
        }

        for (int filter = 0; filter <= (flags & 3) && at + 2 < end; filter++)
        {
            if (bytes[at] == Lzma2)
            {
                int size = bytes[at + 2] & 0x3f;
                return size == 40 ? uint.MaxValue : (2L | (size & 1)) << (size / 2 + 11);
            }

            at += 2 + bytes[at + 1];
        }

        return null;
    }

    private static PatchDiagnostic Corrupt(CompressionFormat format, string found, string expected) =>
        PatchDiagnostic.Error(
            KernelDiagnosticCodes.PayloadCorrupt, $"The compressed kernel is damaged: it is not a whole {format.Compression} stream") with
        {
            Found = found,
            Expected = expected,
            Help = "Copy or download the file again",
        };

    /// <summary>lz4's first format, which kernels use: a magic number, and blocks of 8 MiB with their packed length in front.</summary>
    private sealed class Lz4LegacyStream(MemoryStream compressed) : Stream
    {
        private readonly byte[] _packed = ArrayPool<byte>.Shared.Rent(LZ4Codec.MaximumOutputSize(Lz4Block));
        private readonly byte[] _block = ArrayPool<byte>.Shared.Rent(Lz4Block);
        private int _at;
        private int _length;
        private bool _isDisposed;

        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => false;

        public override long Length => throw new NotSupportedException();

        public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

        public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

        public override int Read(Span<byte> buffer)
        {
            if (_at == _length && !TryReadBlock())
            {
                return 0;
            }

            int count = Math.Min(buffer.Length, _length - _at);
            _block.AsSpan(_at, count).CopyTo(buffer);
            _at += count;
            return count;
        }

        public override void Flush()
        {
        }

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        protected override void Dispose(bool disposing)
        {
            if (disposing && !_isDisposed)
            {
                _isDisposed = true;
                ArrayPool<byte>.Shared.Return(_packed);
                ArrayPool<byte>.Shared.Return(_block);
            }

            base.Dispose(disposing);
        }

        private bool TryReadBlock()
        {
            const uint Magic = 0x184c2102;
            if (compressed.Position == compressed.Length)
            {
                return false;
            }

            uint length = ReadWord();
            if (length == Magic)
            {
                length = ReadWord(); // at the start, and where one stream follows another
            }

            if (length > LZ4Codec.MaximumOutputSize(Lz4Block))
            {
                throw new InvalidDataException($"a block of {length} packed bytes");
            }

            compressed.ReadExactly(_packed, 0, (int)length);
            _length = LZ4Codec.Decode(_packed.AsSpan(0, (int)length), _block.AsSpan(0, Lz4Block));
            _at = 0;
            return _length > 0 ? true : throw new InvalidDataException("a block that cannot be unpacked");
        }

        private uint ReadWord()
        {
            Span<byte> word = stackalloc byte[sizeof(uint)];
            compressed.ReadExactly(word);
            return BinaryPrimitives.ReadUInt32LittleEndian(word);
        }
    }
}
