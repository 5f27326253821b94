using System.Buffers.Binary;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Kernel;

namespace PvPatch.Tool.Tests.Support;

/// <summary>The memory of a machine that runs a small kernel: its sections, moved by KASLR, as an ELF core or as raw bytes.</summary>
internal sealed class DumpedMachine
{
    private readonly List<(string Name, ulong Address, byte[] Bytes)> _sections = [];
    private readonly ulong _slide;

    /// <param name="vmlinux">The kernel as it stands in memory, at its link addresses.</param>
    /// <param name="slide">By how much KASLR moved it.</param>
    public DumpedMachine(byte[] vmlinux, ulong slide = 0)
    {
        _slide = slide;
        ElfImage elf = ElfImage.Read(vmlinux);
        foreach (ElfSection section in elf.Sections.Where(static s => s.IsAllocated && s.HasFileContent && s.Size > 0))
        {
            _sections.Add((section.Name, section.Address.Value, elf.GetBytes(section).ToArray()));
        }

        // The pointers of the ops table are what KASLR changes of this kernel; its calls are relative.
        for (int i = 0; i < SyntheticOps.Names.Count; i++)
        {
            Span<byte> word = At(SyntheticKernel.OpsTable + (8 * (ulong)i));
            BinaryPrimitives.WriteUInt64LittleEndian(word, BinaryPrimitives.ReadUInt64LittleEndian(word) + slide);
        }
    }

    /// <summary>Changes bytes by their link address.</summary>
    public DumpedMachine Put(ulong address, params byte[] bytes)
    {
        bytes.CopyTo(At(address));
        return this;
    }

    /// <summary>One section's bytes.</summary>
    public byte[] Raw(string section) => _sections.Single(s => s.Name == section).Bytes;

    /// <summary>
    /// An ELF core with a program header for each section (System V ABI, ELF-64: header of 64 bytes, program headers of 56).
    /// </summary>
    public byte[] Core()
    {
        int at = 64 + (56 * _sections.Count);
        byte[] file = new byte[at + _sections.Sum(static s => s.Bytes.Length)];
        "\u007fELF"u8.CopyTo(file);
        file[4] = 2; // 64-bit
        file[5] = 1; // little-endian
        file[6] = 1;
        Write16(file, 16, 4); // ET_CORE
        Write16(file, 18, 62); // x86-64
        file[20] = 1;
        Write64(file, 32, 64); // e_phoff
        Write16(file, 52, 64);
        Write16(file, 54, 56);
        Write16(file, 56, (ushort)_sections.Count);
        for (int i = 0; i < _sections.Count; i++)
        {
            (_, ulong address, byte[] bytes) = _sections[i];
            int header = 64 + (56 * i);
            file[header] = 1; // PT_LOAD
            Write64(file, header + 8, (ulong)at);
            Write64(file, header + 16, address + _slide);
            Write64(file, header + 24, (address & 0x7fffffff) + 0x1000000);
            Write64(file, header + 32, (ulong)bytes.Length);
            Write64(file, header + 40, (ulong)bytes.Length);
            bytes.CopyTo(file, at);
            at += bytes.Length;
        }

        return file;
    }

    private Span<byte> At(ulong address)
    {
        (_, ulong start, byte[] bytes) = _sections.Single(s => address >= s.Address && address - s.Address < (ulong)s.Bytes.Length);
        return bytes.AsSpan((int)(address - start));
    }

    private static void Write16(byte[] file, int at, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(at), value);

    private static void Write64(byte[] file, int at, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(at), value);
}
