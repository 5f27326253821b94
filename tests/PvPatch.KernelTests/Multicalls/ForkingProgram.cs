using System.Buffers.Binary;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.KernelTests.Multicalls;

/// <summary>
/// A program for a guest, an ELF file of one segment: it writes to pages in many page tables and forks, so that the kernel has a long array
/// of page-table updates to make and more page tables to pin than a batch has calls.
/// </summary>
internal static class ForkingProgram
{
    private const ulong Start = 0x40_0000;
    private const int HeaderSize = 64 + 56;
    private const long Pages = 0x1000_0000;
    private const int Tables = 40;
    private const int Neighbours = 200;

    public static void Write(string path)
    {
        using var code = new MemoryStream();
        Assembler assembler = Assemble();
        assembler.Assemble(new StreamCodeWriter(code), Start + HeaderSize);
        byte[] file = new byte[HeaderSize + code.Length];
        code.ToArray().CopyTo(file.AsSpan(HeaderSize));

        // ELF64, little-endian; executable, x86-64.
        ((ReadOnlySpan<byte>)[0x7f, (byte)'E', (byte)'L', (byte)'F', 2, 1, 1]).CopyTo(file);
        Put16(16, 2);
        Put16(18, 62);
        Put32(20, 1);
        Put64(24, Start + HeaderSize);
        Put64(32, 64);
        Put16(52, 64);
        Put16(54, 56);
        Put16(56, 1);

        // One segment to load, readable and executable: the whole file.
        Put32(64, 1);
        Put32(68, 5);
        Put64(80, Start);
        Put64(88, Start);
        Put64(96, (ulong)file.Length);
        Put64(104, (ulong)file.Length);
        Put64(112, 0x1000);
        File.WriteAllBytes(path, file);

        void Put16(int offset, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(offset), value);
        void Put32(int offset, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(offset), value);
        void Put64(int offset, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(offset), value);
    }

    private static Assembler Assemble()
    {
        var a = new Assembler(64);

        // mmap(Pages, 2 MiB for each table and one, read and write, private | fixed | anonymous | no reserve, -1, 0)
        a.mov(eax, 9);
        a.mov(edi, (uint)Pages);
        a.mov(esi, (Tables + 1) << 21);
        a.mov(edx, 3);
        a.mov(r10d, 0x4032);
        a.mov(r8, -1);
        a.xor(r9d, r9d);
        a.syscall();

        // A page in each table, then the neighbours of the first.
        WriteTo(a, 1 << 21, Tables);
        WriteTo(a, 1 << 12, Neighbours);

        // fork(); the child ends at once, the parent waits for it: wait4(-1, null, 0, null)
        Label end = a.CreateLabel();
        a.mov(eax, 57);
        a.syscall();
        a.test(eax, eax);
        a.je(end);
        a.mov(eax, 61);
        a.mov(rdi, -1);
        a.xor(esi, esi);
        a.xor(edx, edx);
        a.xor(r10d, r10d);
        a.syscall();

        // mprotect(Pages, the neighbours, read)
        a.mov(eax, 10);
        a.mov(edi, (uint)Pages);
        a.mov(esi, Neighbours << 12);
        a.mov(edx, 1);
        a.syscall();

        // exit(0)
        a.Label(ref end);
        a.mov(eax, 60);
        a.xor(edi, edi);
        a.syscall();
        return a;
    }

    private static void WriteTo(Assembler a, int step, int count)
    {
        Label again = a.CreateLabel();
        a.mov(eax, (uint)Pages);
        a.mov(ecx, count);
        a.Label(ref again);
        a.mov(__byte_ptr[rax], 1);
        a.add(eax, step);
        a.dec(ecx);
        a.jne(again);
    }
}
