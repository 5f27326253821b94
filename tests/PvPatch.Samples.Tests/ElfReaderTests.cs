using System.Buffers.Binary;
using PvPatch.Tests.Shared;
using RiscV.Host;

namespace PvPatch.Samples.Tests;

/// <summary>An ELF file is input from elsewhere: whatever is in it, the reader answers and does not throw.</summary>
public sealed class ElfReaderTests
{
    private const int HeaderSize = 64;
    private const int ProgramHeaderSize = 56;

    [Fact]
    public void a_program_is_read()
    {
        byte[] file = MakeFile();
        Assert.True(ElfReader.TryRead(file, out GuestImage? image, out _));
        GuestSegment segment = Assert.Single(image.Segments);
        Assert.Equal(0x10004UL, image.Entry);
        Assert.Equal(0x10000UL, segment.Address);
        Assert.Equal([1, 2, 3, 4, 5, 6, 7, 8], segment.Bytes.ToArray());
        Assert.Equal(32UL, segment.Size);
        Assert.Equal((0x10000UL, 0x10008UL), image.Code);
    }

    [Theory]
    [InlineData(0, 1, 0, "not an ELF file")]
    [InlineData(4, 1, 1, "not a 64-bit")]
    [InlineData(5, 1, 2, "not a 64-bit")]
    [InlineData(18, 2, 62, "not a program for RISC-V")]
    [InlineData(16, 2, 3, "not a statically linked program")]
    [InlineData(48, 4, 1, "compressed instructions")]
    [InlineData(32, 8, 1000, "program headers")]
    [InlineData(32, 8, -1, "program headers")]
    [InlineData(54, 2, 55, "program headers")]
    [InlineData(56, 2, 0xffff, "program headers")]
    [InlineData(HeaderSize + 8, 8, 200, "outside")]
    [InlineData(HeaderSize + 8, 8, -1, "outside")]
    [InlineData(HeaderSize + 16, 8, -8, "outside")]
    [InlineData(HeaderSize + 16, 8, 0xfffffff0, "outside")]
    [InlineData(HeaderSize + 32, 8, 33, "outside")]
    [InlineData(HeaderSize + 32, 8, -1, "outside")]
    [InlineData(HeaderSize + 40, 8, -1, "outside")]
    [InlineData(HeaderSize + 4, 4, 6, "no executable segment")]
    public void a_lie_in_a_header_is_named(int offset, int size, long value, string error)
    {
        byte[] file = MakeFile();
        byte[] bytes = BitConverter.GetBytes(value);
        bytes.AsSpan(0, size).CopyTo(file.AsSpan(offset));
        Assert.False(ElfReader.TryRead(file, out _, out string? found));
        Assert.Contains(error, found, StringComparison.Ordinal);
    }

    [Fact]
    public void a_file_cut_anywhere_is_refused()
    {
        byte[] file = MakeFile();
        for (int length = 0; length < file.Length; length++)
        {
            Assert.False(ElfReader.TryRead(file.AsMemory(0, length), out _, out _), $"{length} bytes");
        }
    }

    [Fact]
    public void random_damage_gives_an_answer_and_no_image_leaves_the_window()
    {
        var random = TestSeed.NewRandom();
        for (int i = 0; i < 20_000; i++)
        {
            byte[] file = MakeFile();
            for (int change = 0; change < 3; change++)
            {
                file[random.Next(HeaderSize + ProgramHeaderSize)] = (byte)random.Next(256);
            }

            if (ElfReader.TryRead(file, out GuestImage? image, out _))
            {
                Assert.All(image.Segments, static s => Assert.True(s.Address + s.Size <= 1UL << 32 && (ulong)s.Bytes.Length <= s.Size));
            }
        }
    }

    [Fact]
    public void a_program_too_large_for_ram_is_refused() =>
        Assert.Throws<ArgumentException>(
            static () => new Guest(new GuestImage(0x10000, [new GuestSegment(0x10000, new byte[4], 1UL << 31, true)])));

    private static byte[] MakeFile()
    {
        byte[] file = new byte[HeaderSize + ProgramHeaderSize + 8];
        "\u007fELF\u0002\u0001\u0001"u8.CopyTo(file);
        Put(file, 16, 2, 2); // ET_EXEC
        Put(file, 18, 2, 243); // EM_RISCV
        Put(file, 24, 8, 0x10004); // e_entry
        Put(file, 32, 8, HeaderSize); // e_phoff
        Put(file, 54, 2, ProgramHeaderSize);
        Put(file, 56, 2, 1); // e_phnum
        Put(file, HeaderSize, 4, 1); // PT_LOAD
        Put(file, HeaderSize + 4, 4, 5); // PF_R | PF_X
        Put(file, HeaderSize + 8, 8, HeaderSize + ProgramHeaderSize); // p_offset
        Put(file, HeaderSize + 16, 8, 0x10000); // p_vaddr
        Put(file, HeaderSize + 32, 8, 8); // p_filesz
        Put(file, HeaderSize + 40, 8, 32); // p_memsz
        for (byte i = 0; i < 8; i++)
        {
            file[HeaderSize + ProgramHeaderSize + i] = (byte)(i + 1);
        }

        return file;
    }

    private static void Put(byte[] file, int offset, int size, ulong value)
    {
        Span<byte> bytes = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        bytes[..size].CopyTo(file.AsSpan(offset));
    }
}
