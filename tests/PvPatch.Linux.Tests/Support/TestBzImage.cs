using System.IO.Compression;

namespace PvPatch.Linux.Tests.Support;

/// <summary>Writes bzImages around a compressed payload, and compresses with gzip.</summary>
internal static class TestBzImage
{
    public const int SetupSectors = 2;
    public const int PayloadOffset = 0x40;
    public const int PayloadAt = ((SetupSectors + 1) * 512) + PayloadOffset;
    public const string Version = "6.1.0-test (builder@example) #1 SMP";

    /// <summary>A bzImage of boot protocol 2.15; the payload must hold its appended size already.</summary>
    public static byte[] Build(byte[] payload, ushort protocol = 0x20f)
    {
        byte[] file = new byte[PayloadAt + payload.Length + 16];
        file[0x1f1] = SetupSectors;
        file[0x1fe] = 0x55;
        file[0x1ff] = 0xaa;
        "HdrS"u8.CopyTo(file.AsSpan(0x202));
        System.Text.Encoding.ASCII.GetBytes(Version).CopyTo(file, 0x400);
        payload.CopyTo(file, PayloadAt);
        return file.With16(0x206, protocol).With16(0x20e, 0x200).With32(0x248, PayloadOffset).With32(0x24c, (uint)payload.Length);
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
