using System.Buffers.Binary;
using System.IO.Compression;
using PvPatch.Linux.Tests.Support;

namespace PvPatch.Linux.Tests.Memory;

/// <summary>
/// Writes small kdump-compressed dumps: header, sub header, two bitmaps, descriptors, pages. What a header says can differ from what is
/// there.
/// </summary>
internal sealed class TestKdump(bool is64 = true)
{
    public const int Block = 4096;

    private readonly SortedDictionary<ulong, (byte[] Packed, uint Flags)> _pages = [];

    public string Signature { get; init; } = "KDUMP   ";

    public string Machine { get; init; } = is64 ? "x86_64" : "i686";

    public int Version { get; init; } = 6;

    public uint Status { get; init; }

    public uint SubBlocks { get; init; } = 1;

    public uint Split { get; init; }

    /// <summary>Page frames that the header speaks of; by default all up to the last page.</summary>
    public ulong? Frames { get; init; }

    /// <summary>Whether there is only the bitmap of the pages in the dump.</summary>
    public bool HasOneBitmap { get; init; }

    public byte[] VmCoreInfo { get; init; } = [];

    public byte[] Notes { get; init; } = [];

    /// <summary>Offset of the descriptors.</summary>
    public int DescriptorOffset => (int)(1 + SubBlocks + BitmapBlocks) * Block;

    private ulong AllFrames => Frames ?? (_pages.Count == 0 ? 1 : _pages.Keys.Max() + 1);

    private uint BitmapBlocks => (uint)(((AllFrames + 7) / 8 + Block - 1) / Block) * (HasOneBitmap ? 1u : 2u);

    /// <summary>A page as it stands in the file.</summary>
    public TestKdump Packed(ulong frame, byte[] packed, uint flags)
    {
        _pages[frame] = (packed, flags);
        return this;
    }

    public TestKdump Raw(ulong frame, byte[] page) => Packed(frame, page, 0);

    public TestKdump Zlib(ulong frame, byte[] page) => Packed(frame, Deflated(page), 1);

    /// <summary>Memory from a page frame on, in whole pages.</summary>
    public TestKdump Memory(ulong frame, byte[] bytes)
    {
        for (int at = 0; at < bytes.Length; at += Block)
        {
            byte[] page = new byte[Block];
            bytes.AsSpan(at, Math.Min(Block, bytes.Length - at)).CopyTo(page);
            byte[] packed = Deflated(page);
            Packed(frame + (ulong)(at / Block), packed.Length < Block ? packed : page, packed.Length < Block ? 1u : 0);
        }

        return this;
    }

    public byte[] Build()
    {
        int pagesAt = DescriptorOffset + _pages.Count * 24;
        using var file = new MemoryStream();
        byte[] head = new byte[pagesAt];
        WriteHeader(head);
        foreach (ulong frame in _pages.Keys)
        {
            int bitmap = (int)(1 + SubBlocks) * Block;
            head[bitmap + (int)(frame / 8)] |= (byte)(1 << (int)(frame % 8));
            int dumped = HasOneBitmap ? bitmap : bitmap + (int)BitmapBlocks / 2 * Block;
            head[dumped + (int)(frame / 8)] |= (byte)(1 << (int)(frame % 8));
        }

        var stored = new Dictionary<string, long>();
        file.Write(head);
        int index = 0;
        foreach ((byte[] packed, uint flags) in _pages.Values)
        {
            // Pages that are alike are stored once, as makedumpfile does with those of zeros.
            string key = Convert.ToHexString(packed);
            if (!stored.TryGetValue(key, out long offset))
            {
                offset = file.Length;
                stored[key] = offset;
                file.Write(packed);
            }

            Span<byte> descriptor = head.AsSpan(DescriptorOffset + index++ * 24, 24);
            BinaryPrimitives.WriteInt64LittleEndian(descriptor, offset);
            BinaryPrimitives.WriteInt32LittleEndian(descriptor[8..], packed.Length);
            BinaryPrimitives.WriteUInt32LittleEndian(descriptor[12..], flags);
        }

        WriteNote(file, head, VmCoreInfo, is64 ? 32 : 20, is64 ? 40 : 28);
        WriteNote(file, head, Notes, is64 ? 48 : 32, is64 ? 56 : 40);
        byte[] all = file.ToArray();
        head.CopyTo(all, 0);
        return all;
    }

    private void WriteHeader(byte[] head)
    {
        System.Text.Encoding.ASCII.GetBytes(Signature).CopyTo(head, 0);
        BinaryPrimitives.WriteInt32LittleEndian(head.AsSpan(8), Version);
        System.Text.Encoding.ASCII.GetBytes(Machine).CopyTo(head, 272);
        Span<byte> fields = head.AsSpan(is64 ? 424 : 412);
        BinaryPrimitives.WriteUInt32LittleEndian(fields, Status);
        BinaryPrimitives.WriteInt32LittleEndian(fields[4..], Block);
        BinaryPrimitives.WriteUInt32LittleEndian(fields[8..], SubBlocks);
        BinaryPrimitives.WriteUInt32LittleEndian(fields[12..], BitmapBlocks);
        BinaryPrimitives.WriteUInt32LittleEndian(fields[16..], (uint)AllFrames);
        if (SubBlocks > 0)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(head.AsSpan(Block + (is64 ? 12 : 8)), Split);
            BinaryPrimitives.WriteUInt64LittleEndian(head.AsSpan(Block + (is64 ? 96 : 72)), AllFrames);
        }
    }

    private void WriteNote(MemoryStream file, byte[] head, byte[] bytes, int offset, int size)
    {
        if (bytes.Length > 0)
        {
            BinaryPrimitives.WriteInt64LittleEndian(head.AsSpan(Block + offset), file.Length);
            BinaryPrimitives.WriteInt32LittleEndian(head.AsSpan(Block + size), bytes.Length);
            file.Write(bytes);
        }
    }

    public static byte[] Deflated(byte[] page)
    {
        using var packed = new MemoryStream();
        using (var stream = new ZLibStream(packed, CompressionLevel.Fastest))
        {
            stream.Write(page);
        }

        return packed.ToArray();
    }

    /// <summary>A page packed by the program zstd.</summary>
    public static byte[] Zstd(byte[] page) => Tools.Pipe(page, "zstd", "-cq");
}
