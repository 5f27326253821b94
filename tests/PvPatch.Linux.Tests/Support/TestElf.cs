using System.Buffers.Binary;
using PvPatch.Linux.Files;

namespace PvPatch.Linux.Tests.Support;

/// <summary>
/// Writes small ELF files: header, program headers, the sections' bytes, the section names, the section headers. Sections are
/// numbered from 1 in the order they are added; the names come last.
/// </summary>
internal sealed class TestElf(int bitness = 64, ElfFileType type = ElfFileType.Executable)
{
    private readonly List<Section> _sections = [];
    private readonly List<(ElfSegmentType Type, string First, string Last)> _segments = [];
    private readonly bool _is64 = bitness == 64;

    private sealed class Section
    {
        public required string Name { get; init; }

        public required ElfSectionType Type { get; init; }

        public ElfSectionAttributes Flags { get; init; }

        public ulong Address { get; init; }

        public byte[] Content { get; init; } = [];

        public ulong NoBitsSize { get; init; }

        public uint Link { get; init; }

        public uint Info { get; init; }

        public ulong EntrySize { get; init; }

        public int Offset { get; set; }

        public ulong Size => Type == ElfSectionType.NoBits ? NoBitsSize : (ulong)Content.Length;
    }

    public ulong Entry { get; init; } = 0x1000;

    /// <summary>Where the section headers start in the file written last.</summary>
    public int SectionTableOffset { get; private set; }

    /// <summary>Where the program headers start in the file written last.</summary>
    public int SegmentTableOffset => _is64 ? 64 : 52;

    public int SectionEntrySize => _is64 ? 64 : 40;

    public TestElf Code(string name, ulong address, params byte[] content) =>
        Add(name, ElfSectionType.ProgramBits, ElfSectionAttributes.Alloc | ElfSectionAttributes.Execute, address, content);

    public TestElf Data(string name, ulong address, params byte[] content) =>
        Add(name, ElfSectionType.ProgramBits, ElfSectionAttributes.Alloc, address, content);

    public TestElf NoBits(string name, ulong address, ulong size)
    {
        _sections.Add(new Section
        {
            Name = name,
            Type = ElfSectionType.NoBits,
            Flags = ElfSectionAttributes.Alloc,
            Address = address,
            NoBitsSize = size
        });
        return this;
    }

    public TestElf Add(string name, ElfSectionType sectionType, ElfSectionAttributes flags, ulong address, byte[] content, uint link = 0,
        ulong entrySize = 0)
    {
        _sections.Add(new Section
        {
            Name = name,
            Type = sectionType,
            Flags = flags,
            Address = address,
            Content = content,
            Link = link,
            EntrySize = entrySize
        });
        return this;
    }

    /// <summary>A segment from the start of one section to the end of another.</summary>
    public TestElf Load(string first, string last)
    {
        _segments.Add((ElfSegmentType.Load, first, last));
        return this;
    }

    /// <summary>A symbol table with its strings; section 0 is "undefined".</summary>
    public TestElf Symbols(params (string Name, ulong Value, ulong Size, ElfSymbolType Type, ushort Section)[] symbols)
    {
        int entrySize = _is64 ? 24 : 16;
        byte[] table = new byte[(symbols.Length + 1) * entrySize];
        using var strings = new MemoryStream();
        strings.WriteByte(0);
        for (int i = 0; i < symbols.Length; i++)
        {
            Span<byte> entry = table.AsSpan((i + 1) * entrySize, entrySize);
            BinaryPrimitives.WriteUInt32LittleEndian(entry, (uint)strings.Length);
            strings.Write(System.Text.Encoding.UTF8.GetBytes(symbols[i].Name + "\0"));
            entry[_is64 ? 4 : 12] = (byte)(0x10 | (int)symbols[i].Type);
            BinaryPrimitives.WriteUInt16LittleEndian(entry[(_is64 ? 6 : 14)..], symbols[i].Section);
            Native(entry, 4, 8, symbols[i].Value);
            Native(entry, 8, 16, symbols[i].Size);
        }

        uint stringsIndex = (uint)_sections.Count + 2;
        Add(".symtab", ElfSectionType.SymbolTable, ElfSectionAttributes.None, 0, table, stringsIndex, (ulong)entrySize);
        return Add(".strtab", ElfSectionType.StringTable, ElfSectionAttributes.None, 0, strings.ToArray());
    }

    public byte[] Build()
    {
        byte[] names = [0, .. _sections.SelectMany(s => System.Text.Encoding.UTF8.GetBytes(s.Name + "\0")), .. ".shstrtab\0"u8];
        List<Section> all = [.. _sections, new Section { Name = ".shstrtab", Type = ElfSectionType.StringTable, Content = names }];
        int at = SegmentTableOffset + (_segments.Count * (_is64 ? 56 : 32));
        foreach (Section section in all)
        {
            at = (at + 15) & ~15;
            section.Offset = at;
            at += section.Content.Length;
        }

        SectionTableOffset = (at + 7) & ~7;
        byte[] file = new byte[SectionTableOffset + ((all.Count + 1) * SectionEntrySize)];
        WriteHeader(file, all.Count + 1);
        int name = 1;
        for (int i = 0; i < all.Count; i++)
        {
            all[i].Content.CopyTo(file, all[i].Offset);
            WriteSection(file.AsSpan(SectionTableOffset + ((i + 1) * SectionEntrySize)), all[i], (uint)name);
            name += System.Text.Encoding.UTF8.GetByteCount(all[i].Name) + 1;
        }

        for (int i = 0; i < _segments.Count; i++)
        {
            WriteSegment(file.AsSpan(SegmentTableOffset + (i * (_is64 ? 56 : 32))), _segments[i].Type, Find(_segments[i].First),
                Find(_segments[i].Last));
        }

        return file;
    }

    private Section Find(string name) => _sections.Single(s => s.Name == name);

    private void WriteHeader(byte[] file, int sectionCount)
    {
        "\u007fELF"u8.CopyTo(file);
        file[4] = (byte)(_is64 ? 2 : 1);
        file[5] = 1;
        file[6] = 1;
        Span<byte> header = file;
        BinaryPrimitives.WriteUInt16LittleEndian(header[16..], (ushort)type);
        BinaryPrimitives.WriteUInt16LittleEndian(header[18..], (ushort)(_is64 ? 62 : 3));
        BinaryPrimitives.WriteUInt32LittleEndian(header[20..], 1);
        Native(header, 24, 24, Entry);
        Native(header, 28, 32, _segments.Count == 0 ? 0 : (ulong)SegmentTableOffset);
        Native(header, 32, 40, (ulong)SectionTableOffset);
        Half(header, 40, 52, (ushort)SegmentTableOffset);
        Half(header, 42, 54, (ushort)(_is64 ? 56 : 32));
        Half(header, 44, 56, (ushort)_segments.Count);
        Half(header, 46, 58, (ushort)SectionEntrySize);
        Half(header, 48, 60, (ushort)sectionCount);
        Half(header, 50, 62, (ushort)(sectionCount - 1));
    }

    private void WriteSection(Span<byte> header, Section section, uint name)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(header, name);
        BinaryPrimitives.WriteUInt32LittleEndian(header[4..], (uint)section.Type);
        Native(header, 8, 8, (ulong)section.Flags);
        Native(header, 12, 16, section.Address);
        Native(header, 16, 24, (ulong)section.Offset);
        Native(header, 20, 32, section.Size);
        BinaryPrimitives.WriteUInt32LittleEndian(header[(_is64 ? 40 : 24)..], section.Link);
        BinaryPrimitives.WriteUInt32LittleEndian(header[(_is64 ? 44 : 28)..], section.Info);
        Native(header, 32, 48, 1);
        Native(header, 36, 56, section.EntrySize);
    }

    private void WriteSegment(Span<byte> header, ElfSegmentType segmentType, Section first, Section last)
    {
        ulong fileSize = (ulong)(last.Offset + last.Content.Length - first.Offset);
        BinaryPrimitives.WriteUInt32LittleEndian(header, (uint)segmentType);
        BinaryPrimitives.WriteUInt32LittleEndian(header[(_is64 ? 4 : 24)..], (uint)(ElfSegmentAccess.Read | ElfSegmentAccess.Execute));
        Native(header, 4, 8, (ulong)first.Offset);
        Native(header, 8, 16, first.Address);
        Native(header, 12, 24, first.Address & 0xffffff);
        Native(header, 16, 32, fileSize);
        Native(header, 20, 40, fileSize);
        Native(header, 28, 48, 1);
    }

    private void Native(Span<byte> record, int offset32, int offset64, ulong value)
    {
        if (_is64)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(record[offset64..], value);
        }
        else
        {
            BinaryPrimitives.WriteUInt32LittleEndian(record[offset32..], (uint)value);
        }
    }

    private void Half(Span<byte> record, int offset32, int offset64, ushort value) =>
        BinaryPrimitives.WriteUInt16LittleEndian(record[(_is64 ? offset64 : offset32)..], value);
}
