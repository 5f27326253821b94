using System.Buffers.Binary;
using System.Runtime.InteropServices;
using PvPatch.Linux;
using PvPatch.Linux.Files;
using PvPatch.Linux.Modules;
using PvPatch.Linux.Symbols;
using PvPatch.Linux.Tables;
using PvPatch.Plans;

namespace PvPatch.KernelTests.Damage;

/// <summary>A reader of real files: what of a file it reads, so that damage hits it, and how it is called.</summary>
/// <param name="Name">The name, for tests and messages.</param>
/// <param name="Regions">The parts of a valid file that are damaged; none where the file has not what the reader reads.</param>
/// <param name="Read">Reads a file: the diagnostic, or null where it took the file.</param>
internal sealed record RealReader(string Name, Func<byte[], IReadOnlyList<FileRegion>> Regions, Func<Memory<byte>, PatchDiagnostic?> Read)
{
    private const string Btf = ".BTF";
    private const string Sites = ".parainstructions";
    private static readonly string[] s_tables = [Btf, Sites, AltInstrTable.SectionName, AltInstrTable.ReplacementSectionName];

    /// <summary>The names of those of an unpacked kernel.</summary>
    public static IReadOnlyList<string> KernelReaders { get; } = ["elf", "btf", "alternatives", "sites", "kallsyms", "plan"];

    /// <summary>One of those of an unpacked kernel.</summary>
    /// <param name="name">One of <see cref="KernelReaders"/>.</param>
    /// <param name="symbols">
    /// The kernel's symbols: all but the reader of kallsyms are given them, so that most of their time is their own.
    /// </param>
    public static RealReader OfKernel(string name, KernelSymbols symbols) => name switch
    {
        "elf" => new(name, static file => ElfTables(file), ReadElf),
        "btf" => new(name, static file => Sections(file, Btf), ReadBtf),
        "alternatives" => new(name, static file => Sections(file, AltInstrTable.SectionName),
            static file => OpenElf(file, out ElfImage? elf) ?? ReadAlternatives(elf!)),
        "sites" =>
            new(name, static file => Sections(file, Sites), file => OpenElf(file, out ElfImage? elf) ?? OpenKernel(elf!, symbols, out _)),
        "kallsyms" => new(name, static file => Kallsyms(file), static file => OpenElf(file, out ElfImage? elf) ?? ReadKallsyms(elf!)),
        "plan" => new(name, static file => [.. ElfTables(file), .. Sections(file, s_tables)],
            file => OpenElf(file, out ElfImage? elf) ?? PlanKernel(elf!, symbols)),
        _ => throw new ArgumentOutOfRangeException(nameof(name)),
    };

    /// <summary>That of a kernel as it is shipped. Its stream is not unpacked: that is another program's work.</summary>
    public static RealReader OfBzImages { get; } = new(
        "bzimage", static file => [new(0, 1024), new(0x1f0, 0x80), PayloadStart(file), new(file.Length - 4096, 4096)], ReadBzImage);

    /// <summary>That of a module, unpacked, as placed for its kernel.</summary>
    public static RealReader OfModules(KernelImage kernel) => new(
        "module",
        static file => [.. ElfTables(file), .. RelocationsAndTables(file)],
        file => ReadModule(file, kernel));

    private static PatchDiagnostic? OpenElf(Memory<byte> file, out ElfImage? elf)
    {
        _ = ElfImage.TryRead(file, out elf, out PatchDiagnostic? error);
        return error;
    }

    private static PatchDiagnostic? ReadElf(Memory<byte> file)
    {
        if (OpenElf(file, out ElfImage? elf) is PatchDiagnostic error)
        {
            return error;
        }

        foreach (ElfSection section in elf!.Sections)
        {
            int length = elf.GetBytes(section).Length;
            Assert.True(length <= file.Length);
            _ = elf.TryGetBytes(section.Address, Math.Max(1, length), out _);
        }

        // Kernels of distributions have none; where damage makes a section one, it must be read or refused.
        _ = elf.TryReadSymbols(out _, out PatchDiagnostic? symbols);
        return symbols?.Code == KernelDiagnosticCodes.ElfNoSymbols ? null : symbols;
    }

    private static PatchDiagnostic? ReadBtf(Memory<byte> file)
    {
        if (OpenElf(file, out ElfImage? elf) is PatchDiagnostic error)
        {
            return error;
        }

        Assert.True(elf!.TryGetSection(Btf, out ElfSection? section));
        if (!BtfFile.TryRead(elf.GetBytes(section), out BtfFile? btf, out PatchDiagnostic? bad)
            || !btf.TryReadStruct("paravirt_patch_template", elf.Bitness, out BtfStruct? layout, out bad))
        {
            return bad;
        }

        Assert.All(layout.Members, m => Assert.InRange(m.Offset, 0, layout.Size - m.Size));
        return null;
    }

    private static PatchDiagnostic? ReadAlternatives(ElfImage elf)
    {
        if (!AltInstrTable.TryRead(elf, out AltInstrTable? table, out PatchDiagnostic? error))
        {
            return error;
        }

        foreach (AltInstr record in table.Records)
        {
            Assert.True(record.Length == 0 || elf.TryGetBytes(record.Address, record.Length, out _));
        }

        return null;
    }

    private static PatchDiagnostic? ReadKallsyms(ElfImage elf)
    {
        if (!KernelSymbols.TryFromKallsyms(elf, out KernelSymbols? symbols, out PatchDiagnostic? error))
        {
            return error;
        }

        Assert.NotEmpty(symbols[symbols.Count - 1].Name);
        Assert.True(symbols.TryGetName(symbols[symbols.Count / 2].Address, out _, out _));
        return null;
    }

    private static PatchDiagnostic? OpenKernel(ElfImage elf, KernelSymbols symbols, out KernelImage? kernel)
    {
        _ = KernelImage.TryOpen(elf, new KernelOptions { Symbols = symbols }, out kernel, out PatchDiagnostic? error);
        return error;
    }

    private static PatchDiagnostic? PlanKernel(ElfImage elf, KernelSymbols symbols)
    {
        if (OpenKernel(elf, symbols, out KernelImage? kernel) is PatchDiagnostic error)
        {
            return error;
        }

        if (!new KernelPlanner().TryPlan(kernel!, "native", out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics))
        {
            return diagnostics[0];
        }

        // What could be planned can be written and taken back; that every byte is as before is seen in the end.
        ApplyResult written = plan.Apply(kernel!.Code);
        Assert.Equal(written.Written, plan.Revert(kernel.Code).Written);
        return null;
    }

    private static PatchDiagnostic? ReadBzImage(Memory<byte> file)
    {
        if (!BzImage.TryRead(file.Span, out BzImage? image, out PatchDiagnostic? error)
            || !KernelPayload.TryRead(image.GetPayload(file), 0, out KernelPayload? payload, out error))
        {
            return error;
        }

        Assert.True(payload.Stream.Length <= file.Length);
        return null;
    }

    private static PatchDiagnostic? ReadModule(Memory<byte> file, KernelImage kernel)
    {
        if (!KernelModule.TryOpen(file, out KernelModule? module, out PatchDiagnostic? error)
            || !module.TryPlace(kernel, ModulePlacement.At(0xffffffffc0200000), out PlacedModule? placed, out error))
        {
            return error;
        }

        return new KernelPlanner().TryPlan(placed, new BootMachine(), out PatchPlan? _, out IReadOnlyList<PatchDiagnostic> diagnostics)
            ? null : diagnostics[0];
    }

    /// <summary>The header, the segments, the sections with their names.</summary>
    private static List<FileRegion> ElfTables(byte[] file)
    {
        ElfImage elf = ElfImage.Read(file);
        bool is64 = elf.Bitness == 64;
        int segments = (int)(is64 ? BitConverter.ToInt64(file, 32) : BitConverter.ToUInt32(file, 28));
        int sections = (int)(is64 ? BitConverter.ToInt64(file, 40) : BitConverter.ToUInt32(file, 32));
        List<FileRegion> regions = [new(0, is64 ? 64 : 52), new(sections, elf.Sections.Count * (is64 ? 64 : 40)),
            .. Sections(file, ".shstrtab", ".symtab", ".strtab")];
        if (elf.Segments.Count > 0)
        {
            regions.Add(new(segments, elf.Segments.Count * (is64 ? 56 : 32)));
        }

        return regions;
    }

    private static FileRegion[] Sections(byte[] file, params string[] names) =>
        [.. ElfImage.Read(file).Sections.Where(s => names.Contains(s.Name) && s.HasFileContent && s.Size > 0)
            .Select(static s => new FileRegion((int)s.FileOffset, (int)s.Size))];

    /// <summary>A module's tables and everything that moves them.</summary>
    private static FileRegion[] RelocationsAndTables(byte[] file)
    {
        string[] names = [.. s_tables, ".rela" + Sites, ".rela" + AltInstrTable.SectionName, ".rel" + Sites,
            ".rel" + AltInstrTable.SectionName, ".modinfo", ".gnu.linkonce.this_module"];
        return Sections(file, names);
    }

    /// <summary>
    /// Makes a kernel's file hold .rodata alone: every other section is said to have no content. Where kallsyms are damaged they are
    /// looked for in all of it, which takes longer than everything else and is the same every time.
    /// </summary>
    public static void KeepReadOnlyData(byte[] file)
    {
        ElfImage elf = ElfImage.Read(file);
        bool is64 = elf.Bitness == 64;
        int table = (int)(is64 ? BitConverter.ToInt64(file, 40) : BitConverter.ToUInt32(file, 32));
        for (int i = 0; i < elf.Sections.Count; i++)
        {
            if (elf.Sections[i] is { IsAllocated: true, HasFileContent: true, Name: not ".rodata" })
            {
                const uint NoBits = 8; // SHT_NOBITS
                BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(table + (i * (is64 ? 64 : 40)) + 4), NoBits);
            }
        }
    }

    /// <summary>
    /// The tables of kallsyms, which lie around the table of tokens: names and markers before it, its index and, from 6.4 on, the addresses
    /// behind it.
    /// </summary>
    private static FileRegion[] Kallsyms(byte[] file)
    {
        ElfSection data = ElfImage.Read(file).Sections.Single(static s => s.Name == ".rodata");
        int start = (int)data.FileOffset;
        int end = start + (int)data.Size;

        // The table is 256 strings end to end. Those of the digits have one byte each in every kernel; other lists of digits are
        // not followed by an index: as many ascending offsets, from 0.
        ReadOnlySpan<byte> digits = "0\01\02\03\04\05\06\07\08\09\0"u8;
        for (int at = start; file.AsSpan(at..end).IndexOf(digits) is >= 0 and int next; at += next + 1)
        {
            int tokens = at + next;
            if (Enumerable.Range(0, 2048).Any(i => IsIndex(file.AsSpan(((tokens + 1) & ~1) + (2 * i), 512))))
            {
                int names = Math.Max(start, tokens - (3 << 20));
                return [new(names, tokens - names), new(tokens - 4096, 4096), new(tokens, 2048),
                    new(tokens + 2048, Math.Min(1 << 20, end - tokens - 2048))];
            }
        }

        throw new InvalidOperationException("there is no table of tokens");
    }

    private static bool IsIndex(ReadOnlySpan<byte> words)
    {
        ReadOnlySpan<ushort> offsets = MemoryMarshal.Cast<byte, ushort>(words);
        for (int i = 1; i < offsets.Length; i++)
        {
            if (offsets[i] <= offsets[i - 1])
            {
                return false;
            }
        }

        return offsets[0] == 0;
    }

    private static FileRegion PayloadStart(byte[] file)
    {
        Assert.True(BzImage.TryRead(file, out BzImage? image, out PatchDiagnostic? error), error?.ToString());
        int start = file.AsSpan().IndexOf(image.GetPayload(file).Span[..64]);
        return new FileRegion(start, 64);
    }
}
