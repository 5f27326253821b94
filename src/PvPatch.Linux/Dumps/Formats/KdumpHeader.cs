using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Dumps;

/// <summary>The header and sub header of a kdump-compressed dump: what it is of, and where its tables are.</summary>
/// <remarks>
/// Everything is in blocks of 4096 bytes, the size of a page:
/// <code>
/// block 0     header: signature, version, utsname (6 times 65 bytes), time, status, sizes of the parts
/// 1           sub header: phys_base, split, VMCOREINFO, notes, number of pages (each from some version on)
/// 1 + sub     bitmaps: pages that exist, pages that are in the dump
/// ...         descriptors of 24 bytes, one for each page in the dump, in order
/// ...         pages
/// </code>
/// Fields behind the time lie where a C compiler puts them: on 32-bit machines others than on 64-bit ones.
/// </remarks>
internal sealed class KdumpHeader
{
    public const int BlockSize = 4096;

    private const int NewestVersion = 6;
    private const int MachineOffset = 12 + 4 * 65;
    private const int StatusOffset64 = 424;
    private const int StatusOffset32 = 412;

    // Physical addresses of 46 bits, 64 TiB: what processors with four levels of page tables have.
    private const ulong MaxPages = 1UL << 34;

    // Fields of the sub header: offset in dumps of 32- and of 64-bit machines.
    private static readonly (int On32, int On64) s_split = (8, 12);
    private static readonly (int On32, int On64) s_vmCoreInfo = (20, 32);
    private static readonly (int On32, int On64) s_vmCoreInfoSize = (28, 40);
    private static readonly (int On32, int On64) s_notes = (32, 48);
    private static readonly (int On32, int On64) s_notesSize = (40, 56);
    private static readonly (int On32, int On64) s_maxMapNr = (72, 96);

    /// <summary>32 or 64: the bitness of the machine.</summary>
    public required int Bitness { get; init; }

    /// <summary>Number of page frames that the bitmaps are of.</summary>
    public required ulong Pages { get; init; }

    /// <summary>Offset of the bitmap of the pages in the dump; it lies in the file.</summary>
    public required long BitmapOffset { get; init; }

    /// <summary>Offset of the first descriptor, not checked against the file.</summary>
    public required long DescriptorOffset { get; init; }

    /// <summary>Flags of the whole dump: the compression, whether it was written whole.</summary>
    public required uint Status { get; init; }

    /// <summary>Place of the note VMCOREINFO's content, not checked against the file; empty where it is not known.</summary>
    public required (ulong Offset, ulong Length) VmCoreInfo { get; init; }

    /// <summary>Place of ELF notes, not checked against the file; empty where there are none.</summary>
    public required (ulong Offset, ulong Length) Notes { get; init; }

    /// <summary>Whether a file starts as a dump of kdump, or of diskdump before it.</summary>
    public static bool HasMagic(ReadOnlySpan<byte> start) => start.StartsWith("KDUMP   "u8) || start.StartsWith("DISKDUMP"u8);

    public static bool TryRead(
        MemorySource source, [NotNullWhen(true)] out KdumpHeader? header, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        header = null;
        byte[] block = new byte[2 * BlockSize];
        if (!source.TryRead(0, block))
        {
            error = BadHeader(source.Length, "the compressed dump ends inside its headers", $"{source.Length} bytes", "at least 2 blocks");
            return false;
        }

        uint version = Word(block, 8);
        string machine = MachineOf(block);
        if (version > NewestVersion)
        {
            error = BadHeader(8, "the compressed dump is of a version that is not known", $"version {version}", $"at most {NewestVersion}");
            return false;
        }

        // 64-bit machines write no other; of 32-bit ones QEMU's dumps may be either.
        bool is64 = machine == "x86_64" || Word(block, StatusOffset32 + 4) != BlockSize;
        uint blockSize = Word(block, (is64 ? StatusOffset64 : StatusOffset32) + 4);
        if (BitnessOf(machine) is not int bitness || blockSize != BlockSize)
        {
            error = BadHeader(MachineOffset, "the compressed dump is not of an x86 machine",
                $"machine \"{machine}\", blocks of {blockSize} bytes", "x86_64 or i686, blocks of 4096 bytes");
            return false;
        }

        return TryReadSizes(source, block, is64, bitness, out header, out error);
    }

    private static bool TryReadSizes(MemorySource source, byte[] block, bool is64, int bitness, [NotNullWhen(true)] out KdumpHeader? header,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        header = null;
        int status = is64 ? StatusOffset64 : StatusOffset32;
        ulong subBlocks = Word(block, status + 8);
        ulong bitmapBlocks = Word(block, status + 12);
        ulong pages = Word(block, status + 16);

        // Diskdump's sub header is of another kind, and its version another count.
        uint version = subBlocks == 0 || block.AsSpan().StartsWith("DISKDUMP"u8) ? 0 : Word(block, 8);
        ReadOnlySpan<byte> sub = block.AsSpan(BlockSize);
        pages = version >= 6 ? Native(sub, s_maxMapNr, true, is64) : pages;
        if (version >= 2 && BinaryPrimitives.ReadUInt32LittleEndian(sub[(is64 ? s_split.On64 : s_split.On32)..]) != 0)
        {
            error = PatchDiagnostic.Error(KernelDiagnosticCodes.KdumpSplit, "the file is one of several that a dump was split into") with
            {
                FileOffset = BlockSize + (is64 ? s_split.On64 : s_split.On32),
                Help = "Put them together: makedumpfile --reassemble FILE1 FILE2 OTHER.",
            };
            return false;
        }

        ulong needed = ((pages + 7) / 8 + BlockSize - 1) / BlockSize;
        bool isWhole = pages is > 0 and <= MaxPages && bitmapBlocks >= needed;
        bool hasTwo = bitmapBlocks >= 2 * needed;
        ulong bitmap = (1 + subBlocks + (hasTwo ? bitmapBlocks / 2 : 0)) * BlockSize;
        if (!isWhole || !FileRange.Fits(bitmap, needed * BlockSize, source.Length))
        {
            error = PatchDiagnostic.Error(
                KernelDiagnosticCodes.KdumpBadTables, "the bitmap of the compressed dump's pages is too small, or not in the file") with
            {
                FileOffset = status + 8,
                Found = $"{pages} pages, {bitmapBlocks} blocks of bitmaps behind {subBlocks} of the sub header",
                Expected = $"1 to {MaxPages} pages, a bit for each, within {FileRange.Hex((ulong)source.Length)} bytes",
                Help = "The dump is cut short or damaged; take it again.",
            };
            return false;
        }

        error = null;
        header = new KdumpHeader
        {
            Bitness = bitness,
            Pages = pages,
            BitmapOffset = (long)bitmap,
            DescriptorOffset = (long)((1 + subBlocks + bitmapBlocks) * BlockSize),
            Status = Word(block, status),
            VmCoreInfo = version < 3 ? default : (Native(sub, s_vmCoreInfo, true, is64), Native(sub, s_vmCoreInfoSize, is64, is64)),
            Notes = version < 4 ? default : (Native(sub, s_notes, true, is64), Native(sub, s_notesSize, is64, is64)),
        };
        return true;
    }

    // utsname: sysname, nodename, release, version, machine, domainname.
    private static string MachineOf(ReadOnlySpan<byte> header)
    {
        ReadOnlySpan<byte> machine = header.Slice(MachineOffset, 65);
        int end = machine.IndexOfAnyExceptInRange((byte)'!', (byte)'~');
        return System.Text.Encoding.ASCII.GetString(end < 0 ? machine : machine[..end]);
    }

    private static int? BitnessOf(string machine) => machine switch
    {
        "x86_64" => 64,
        ['i', >= '3' and <= '6', '8', '6'] => 32,
        _ => null,
    };

    private static uint Word(ReadOnlySpan<byte> bytes, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[offset..]);

    private static ulong Native(ReadOnlySpan<byte> sub, (int On32, int On64) field, bool isWide, bool is64) =>
        isWide ? BinaryPrimitives.ReadUInt64LittleEndian(sub[(is64 ? field.On64 : field.On32)..])
            : BinaryPrimitives.ReadUInt32LittleEndian(sub[(is64 ? field.On64 : field.On32)..]);

    private static PatchDiagnostic BadHeader(long offset, string message, string found, string expected) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.KdumpBadHeader, message) with
        {
            FileOffset = offset,
            Found = found,
            Expected = expected,
            Help = "The dump is damaged, or not of a machine that is known here; take it again.",
        };
}
