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
}
