using System.IO.Compression;

namespace PvPatch.Linux.Tests.Support;

/// <summary>Writes bzImages around a compressed payload, and compresses with gzip.</summary>
internal static class TestBzImage
{
    public const int SetupSectors = 2;
    public const int PayloadOffset = 0x40;
    public const int PayloadAt = ((SetupSectors + 1) * 512) + PayloadOffset;
    public const string Version = "6.1.0-test (builder@example) #1 SMP";

    /// <summary>The file offset of the PE header.</summary>
    public const int PeAt = 0x40;

    /// <summary>The file offset of the first of three section headers: <c>.setup</c>, <c>.text</c>, <c>.data</c>.</summary>
    public const int SectionsAt = PeAt + 24 + 0xa0;

    /// <summary>The file offset of the directory entry of the signature.</summary>
    public const int SignatureAt = SectionsAt - (2 * 8);

    /// <summary>The length of the code behind the compressed kernel, rounded up so that the kernel ends at a multiple of 16.</summary>
    public const int TailLength = 0x300;

    private const int DataLength = 0x40;
    private const int SignatureLength = 0x10;

    /// <summary>
    /// A bzImage of boot protocol 2.15 as Linux 6.x lays it out, with an EFI stub and a signature; the payload must hold its appended size
    /// already.
    /// </summary>
    /// <remarks>
    /// <code>
    /// 0  boot sector, setup  | entry, 0x40 | payload | code, 0x300; at its start the EFI entries | .data, 0x40 | signature
    /// </code>
    /// </remarks>
    public static byte[] Build(byte[] payload, ushort protocol = 0x20f, int setupSectors = SetupSectors)
    {
        int setup = (setupSectors + 1) * 512;
        int tail = PayloadOffset + payload.Length;
        int kernel = (tail + TailLength + 15) & ~15;
        byte[] file = new byte[setup + kernel + SignatureLength];
        file[0x1f1] = (byte)(setupSectors == 4 ? 0 : setupSectors);
        file[0x1fe] = 0x55;
        file[0x1ff] = 0xaa;
        file[0x200] = 0xeb;
        file[0x201] = 0x26c - 0x202;
        "HdrS"u8.CopyTo(file.AsSpan(0x202));
        System.Text.Encoding.ASCII.GetBytes(Version).CopyTo(file, 0x400);
        payload.CopyTo(file, setup + PayloadOffset);
        AddStub(file, setup, kernel);
        int info = tail + 0x220;
        "LToP"u8.CopyTo(file.AsSpan(setup + info));
        return file.With32(0x1f4, (uint)kernel / 16).With16(0x206, protocol).With16(0x20e, 0x200).With16(0x236, 0x7f)
            .With32(0x248, PayloadOffset).With32(0x24c, (uint)payload.Length)
            .With32(0x260, (uint)kernel + 0x1000).With32(0x264, (uint)tail).With32(0x268, (uint)info)
            .With32(setup + info + 4, 16).With32(setup + info + 8, 16);
    }

    private static void AddStub(byte[] file, int setup, int kernel)
    {
        "MZ"u8.CopyTo(file);
        "PE"u8.CopyTo(file.AsSpan(PeAt));
        Put(0x3c, PeAt);
        Put(PeAt + 4, 0x8664 | (3 << 16)); // machine, number of sections
        Put(PeAt + 0x14, 0xa0); // length of the optional header
        Put(PeAt + 0x18, 0x20b);
        Put(PeAt + 0x18 + 108, 6); // directories
        Put(SignatureAt, setup + kernel);
        Put(SignatureAt + 4, SignatureLength);
        Section(0, ".setup", 0x200, setup - 0x200, setup - 0x200);
        Section(1, ".text", setup, kernel - DataLength, kernel - DataLength);
        Section(2, ".data", setup + kernel - DataLength, DataLength, 0x1000);

        void Section(int index, string name, int at, int size, int memory)
        {
            int header = SectionsAt + (40 * index);
            System.Text.Encoding.ASCII.GetBytes(name).CopyTo(file, header);
            Put(header + 8, memory);
            Put(header + 12, at);
            Put(header + 16, size);
            Put(header + 20, at);
        }

        void Put(int at, int value) => System.Buffers.Binary.BinaryPrimitives.WriteInt32LittleEndian(file.AsSpan(at), value);
    }

    /// <summary>What the kernel's build does for all compressions but gzip: the stream, then the size of the unpacked bytes.</summary>
    public static byte[] AppendSize(byte[] stream, int size) => [.. stream, .. BitConverter.GetBytes(size)];

    public static byte[] Gzip(byte[] bytes)
    {
        using var result = new MemoryStream();
        using (var gzip = new GZipStream(result, CompressionLevel.Optimal, leaveOpen: true))
        {
            gzip.Write(bytes);
        }

        return result.ToArray();
    }

    /// <summary>A small ELF file whose bytes do not compress to nothing.</summary>
    public static byte[] Kernel(int codeSize = 300_000)
    {
        byte[] code = new byte[codeSize];
        var random = new Random(1);
        for (int i = 0; i < code.Length; i++)
        {
            code[i] = (byte)random.Next(16);
        }

        return new TestElf().Code(".text", 0xffffffff81000000, code).Build();
    }
}
