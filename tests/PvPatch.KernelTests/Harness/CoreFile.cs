using System.Buffers.Binary;

namespace PvPatch.KernelTests.Harness;

/// <summary>What tests change in copies of ELF64 cores.</summary>
internal static class CoreFile
{
    private const int HeaderSize = 64;
    private const int SegmentSize = 56;

    /// <summary>
    /// Moves the program headers to the place behind the ELF header, where makedumpfile (1.7.2) takes them to be whatever
    /// e_phoff says; QEMU from 7.2 on has section headers there, of no use but to count tens of thousands of segments.
    /// </summary>
    public static void PutSegmentsFirst(string path)
    {
        using FileStream file = new(path, FileMode.Open, FileAccess.ReadWrite);
        byte[] header = new byte[HeaderSize];
        file.ReadExactly(header);
        ushort count = BinaryPrimitives.ReadUInt16LittleEndian(header.AsSpan(56));
        byte[] segments = new byte[count * SegmentSize];
        file.Position = BinaryPrimitives.ReadInt64LittleEndian(header.AsSpan(32));
        file.ReadExactly(segments);

        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(32), HeaderSize); // e_phoff
        BinaryPrimitives.WriteInt64LittleEndian(header.AsSpan(40), 0); // e_shoff
        BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(52), HeaderSize); // e_ehsize: QEMU 7.2 writes 8
        header.AsSpan(58, 6).Clear(); // e_shentsize, e_shnum, e_shstrndx
        file.Position = 0;
        file.Write(header);
        file.Write(segments);
    }

    /// <summary>Where a core has a byte of memory.</summary>
    /// <param name="path">The core.</param>
    /// <param name="physical">The physical address.</param>
    public static long OffsetOf(string path, ulong physical)
    {
        using FileStream file = File.OpenRead(path);
        byte[] header = new byte[HeaderSize];
        file.ReadExactly(header);
        file.Position = BinaryPrimitives.ReadInt64LittleEndian(header.AsSpan(32));
        byte[] segment = new byte[SegmentSize];
        for (int i = 0; i < BinaryPrimitives.ReadUInt16LittleEndian(header.AsSpan(56)); i++)
        {
            file.ReadExactly(segment);
            ulong start = BinaryPrimitives.ReadUInt64LittleEndian(segment.AsSpan(24));
            if (segment[0] == 1 && physical >= start && physical - start < BinaryPrimitives.ReadUInt64LittleEndian(segment.AsSpan(32)))
            {
                return BinaryPrimitives.ReadInt64LittleEndian(segment.AsSpan(8)) + (long)(physical - start);
            }
        }

        throw new InvalidDataException($"{physical:x} is in no segment of {path}.");
    }

    /// <summary>Copies the first bytes of a file.</summary>
    public static void CopyStart(string path, string target, long length)
    {
        using FileStream source = File.OpenRead(path);
        using FileStream copy = File.Create(target);
        byte[] buffer = new byte[1 << 20];
        while (length > 0)
        {
            int count = source.Read(buffer, 0, (int)Math.Min(length, buffer.Length));
            Assert.NotEqual(0, count);
            copy.Write(buffer, 0, count);
            length -= count;
        }
    }
}
