using System.Buffers.Binary;

namespace PvPatch.KernelTests.Harness;

/// <summary>
/// The ELF inside a bzImage, unpacked by the distribution's own tools: a second reader beside the product's. Header
/// fields: Documentation/arch/x86/boot.rst, boot protocol 2.08 and later.
/// </summary>
public static class BzImage
{
    private const int SetupSectors = 0x1f1;
    private const int HeaderMagic = 0x202;
    private const int PayloadOffset = 0x248;
    private const int PayloadLength = 0x24c;

    /// <summary>
    /// The program that unpacks a kernel's payload and the Debian package that brings it, or null for a file that is no bzImage.
    /// </summary>
    public static (string Tool, string DebianPackage)? Decompressor(string imagePath)
    {
        byte[] image = File.ReadAllBytes(imagePath);
        return IsBzImage(image) ? Decompressor(Payload(image)) : null;
    }

    /// <summary>Writes the ELF (and the relocation table that follows it, if any) to a file.</summary>
    public static void ExtractElf(string imagePath, string targetPath)
    {
        byte[] image = File.ReadAllBytes(imagePath);
        if (!IsBzImage(image))
        {
            throw new InvalidDataException($"{imagePath} is no bzImage.");
        }

        ReadOnlySpan<byte> payload = Payload(image);
        (string tool, string debianPackage) = Decompressor(payload);
        Require.Tool(tool, debianPackage);

        // The build appends the unpacked size in four bytes (gzip has it as its own trailer), which tools take for junk.
        string packedPath = $"{targetPath}.packed";
        File.WriteAllBytes(packedPath, tool == "gzip" ? payload : payload[..^4]);
        try
        {
            ToolResult result = ExternalTool.Run(
                tool, ["-dc", packedPath], TimeSpan.FromMinutes(2), stream => Save(stream, targetPath));
            if (!result.Succeeded)
            {
                throw new InvalidDataException($"{tool} cannot unpack the payload of {imagePath}: {result.Error}");
            }
        }
        finally
        {
            File.Delete(packedPath);
        }
    }

    private static bool IsBzImage(ReadOnlySpan<byte> image) => image.Length > HeaderMagic && image[HeaderMagic..].StartsWith("HdrS"u8);

    private static ReadOnlySpan<byte> Payload(ReadOnlySpan<byte> image)
    {
        // The payload's offset counts from the end of the setup part; 0 sectors mean 4, for the oldest loaders.
        int sectors = image[SetupSectors] == 0 ? 4 : image[SetupSectors];
        int start = ((sectors + 1) * 512) + BinaryPrimitives.ReadInt32LittleEndian(image[PayloadOffset..]);
        return image.Slice(start, BinaryPrimitives.ReadInt32LittleEndian(image[PayloadLength..]));
    }

    private static (string Tool, string DebianPackage) Decompressor(ReadOnlySpan<byte> payload) => payload switch
    {
        [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, ..] => ("xz", "xz-utils"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", "zstd"),
        [0x02, 0x21, 0x4c, 0x18, ..] => ("lz4", "lz4"),
        [0x1f, 0x8b, ..] => ("gzip", "gzip"),
        _ => throw new InvalidDataException($"Unknown compression: {Convert.ToHexString(payload[..8])}"),
    };

    private static string Save(Stream stream, string path)
    {
        using FileStream file = File.Create(path);
        stream.CopyTo(file);
        return string.Empty;
    }
}
