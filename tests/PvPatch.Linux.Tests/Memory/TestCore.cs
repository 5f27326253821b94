using System.Buffers.Binary;
using PvPatch.Linux.Dumps;

namespace PvPatch.Linux.Tests.Memory;

/// <summary>Writes small ELF cores: header, program headers, notes, memory. What a header says can differ from what is there.</summary>
internal sealed class TestCore(bool is64 = true, ushort machine = 62)
{
    private readonly List<(ulong Virtual, ulong Physical, byte[] Bytes, ulong? FileSize, ulong? Offset)> _loads = [];
    private readonly List<byte> _notes = [];

    public int HeaderSize => is64 ? 64 : 52;

    public int EntrySize => is64 ? 56 : 32;

    /// <summary>Whether the number of program headers is written where large numbers are: into section header 0.</summary>
    public bool ExtendedCount { get; init; }

    public ushort Type { get; init; } = 4;

    public TestCore Load(ulong virtualAddress, ulong physicalAddress, byte[] bytes, ulong? fileSize = null, ulong? offset = null)
    {
        _loads.Add((virtualAddress, physicalAddress, bytes, fileSize, offset));
        return this;
    }

    /// <summary>A note, its name without the terminator.</summary>
    public TestCore Note(string name, uint type, byte[] content)
    {
        byte[] text = System.Text.Encoding.ASCII.GetBytes(name + "\0");
        byte[] header = new byte[12];
        BinaryPrimitives.WriteUInt32LittleEndian(header, (uint)text.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(4), (uint)content.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(8), type);
        _notes.AddRange(header);
        AddPadded(text);
        AddPadded(content);
        return this;
    }

    public TestCore VmCoreInfo(params string[] lines) =>
        Note("VMCOREINFO", 0, System.Text.Encoding.ASCII.GetBytes(string.Concat(lines.Select(l => l + "\n"))));

    public TestCore RawNotes(params byte[] bytes)
    {
        _notes.AddRange(bytes);
        return this;
    }

    /// <summary>Where the program header of a load is; the notes have the first one.</summary>
    public int HeaderOf(int load) => HeaderSize + ((load + 1) * EntrySize);

    public byte[] Build()
    {
        int count = _loads.Count + 1;
        int sections = HeaderSize + (count * EntrySize);
        int at = sections + (ExtendedCount ? 64 : 0);
        byte[] file = new byte[at + _notes.Count + _loads.Sum(static l => l.Bytes.Length)];
        WriteHeader(file, count, sections);
        WriteSegment(file.AsSpan(HeaderSize), 4, 0, 0, (ulong)at, (ulong)_notes.Count);
        _notes.CopyTo(file, at);
        at += _notes.Count;
        for (int i = 0; i < _loads.Count; i++)
        {
            (ulong virtualAddress, ulong physicalAddress, byte[] bytes, ulong? fileSize, ulong? offset) = _loads[i];
            WriteSegment(
                file.AsSpan(HeaderOf(i)), 1, virtualAddress, physicalAddress, offset ?? (ulong)at, fileSize ?? (ulong)bytes.Length);
            bytes.CopyTo(file, at);
            at += bytes.Length;
        }

        return file;
    }

    /// <summary>Opens the core, which must be sound enough.</summary>
    public MemoryFile Open() => Open(Build());

    public static MemoryFile Open(byte[] file, VirtualAddress? start = null)
    {
        bool opened = MemoryFile.TryOpen(new BytesMemorySource(file), "core", start, out MemoryFile? memory, out PatchDiagnostic? error);
        Assert.True(opened, error?.ToString());
        return memory!;
    }

    private void AddPadded(byte[] bytes)
    {
        _notes.AddRange(bytes);
        _notes.AddRange(new byte[-bytes.Length & 3]);
    }

    private void WriteHeader(byte[] file, int count, int sections)
    {
        "\u007fELF"u8.CopyTo(file);
        file[4] = (byte)(is64 ? 2 : 1);
        file[5] = 1;
        file[6] = 1;
        Span<byte> header = file;
        BinaryPrimitives.WriteUInt16LittleEndian(header[16..], Type);
        BinaryPrimitives.WriteUInt16LittleEndian(header[18..], machine);
        BinaryPrimitives.WriteUInt32LittleEndian(header[20..], 1);
        Native(header, 28, 32, (ulong)HeaderSize);
        Native(header, 32, 40, ExtendedCount ? (ulong)sections : 0);
        BinaryPrimitives.WriteUInt16LittleEndian(header[(is64 ? 54 : 42)..], (ushort)EntrySize);
        BinaryPrimitives.WriteUInt16LittleEndian(header[(is64 ? 56 : 44)..], ExtendedCount ? (ushort)0xffff : (ushort)count);
        if (ExtendedCount)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(header[(sections + (is64 ? 44 : 28))..], (uint)count);
        }
    }

    private void WriteSegment(Span<byte> header, uint type, ulong virtualAddress, ulong physicalAddress, ulong offset, ulong fileSize)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(header, type);
        Native(header, 4, 8, offset);
        Native(header, 8, 16, virtualAddress);
        Native(header, 12, 24, physicalAddress);
        Native(header, 16, 32, fileSize);
        Native(header, 20, 40, fileSize);
    }

    private void Native(Span<byte> record, int offset32, int offset64, ulong value)
    {
        if (is64)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(record[offset64..], value);
        }
        else
        {
            BinaryPrimitives.WriteUInt32LittleEndian(record[offset32..], unchecked((uint)value));
        }
    }
}
