using PvPatch.Linux.Files;
using PvPatch.Linux.Tables;
using PvPatch.Linux.Tests.Support;
using Member = PvPatch.Linux.Tests.Support.TestBtf.Member;

namespace PvPatch.Linux.Tests.Fuzz;

public sealed class ReaderFuzzTests
{
    private const ulong Text = 0xffffffff81000000;
    private const int Usual = 4000;

    [Fact]
    public void Elf_images_survive_damage() =>
        FuzzRun.Run([Elf(64), Elf(32), Elf(64, ElfFileType.Relocatable)], FuzzRun.Count(Usual), ReadElf, 32, 256 << 10);

    [Fact]
    public void Btf_survives_damage() => FuzzRun.Run([Btf()], FuzzRun.Count(Usual), ReadBtf, 4, 8 << 20);

    [Fact]
    public void Alternatives_survive_damage() => FuzzRun.Run([Alternatives()], FuzzRun.Count(Usual), ReadAlternatives, 32, 64 << 10);

    [Fact]
    public void Alternatives_in_an_image_survive_damage() =>
        FuzzRun.Run([ImageWithAlternatives()], FuzzRun.Count(Usual), ReadImageAlternatives, 64, 256 << 10);

    [Fact]
    public void Gzipped_kernels_survive_damage()
    {
        byte[] kernel = Elf(64);
        byte[] gzip = TestBzImage.Gzip(kernel);

        // The output is bounded by MaxImageSize, whatever the input announces; the rest is the inflater's window.
        FuzzRun.Run([TestBzImage.Build(gzip), gzip], FuzzRun.Count(Usual), file => Load(file, 64 << 10), 4, 512 << 10);
    }

    [Fact]
    public void Kernels_of_every_compression_survive_damage()
    {
        byte[] kernel = Elf(64);
        byte[][] valid =
        [
            .. Compressors.Programs.SelectMany(compression =>
            {
                byte[] stream = Compressors.Compress(compression, kernel);
                return (byte[][])[TestBzImage.Build(TestBzImage.AppendSize(stream, kernel.Length)), stream];
            }),
        ];
        // 24 MiB: the blocks of lz4's decoder, once, and the tables of bzip2's.
        FuzzRun.Run(valid, Math.Min(FuzzRun.Count(48), 2000), file => Load(file, 64 << 10), 4, 24 << 20);
    }

    private static PatchDiagnostic? ReadElf(byte[] file)
    {
        if (!ElfImage.TryRead(file, out ElfImage? image, out PatchDiagnostic? error))
        {
            return error;
        }

        Assert.InRange(image.EndOfFileContent, 0, file.Length);
        foreach (ElfSection section in image.Sections)
        {
            int length = image.GetBytes(section).Length;
            if (image.TryGetFileOffset(section.Address, Math.Max(1, length), out long offset))
            {
                Assert.InRange(offset, 0, file.Length - Math.Max(1, length));
            }

            _ = image.TryGetSectionAt(section.Address + length, out _);
            _ = image.TryGetBytes(section.Address + (length / 2), int.MaxValue, out _);
        }

        if (!image.TryReadSymbols(out ElfSymbolTable? symbols, out error))
        {
            return error;
        }

        for (int i = 0; i < symbols.Count; i++)
        {
            Assert.True(symbols.GetNameUtf8(i).Length <= file.Length);
            Assert.True(symbols[i].SectionIndex >= -1);
        }

        _ = symbols.TryFind("pv_ops", out _);
        return null;
    }

    private static PatchDiagnostic? ReadBtf(byte[] btf)
    {
        if (!BtfStructLayout.TryRead(btf, "ops", out BtfStruct? layout, out PatchDiagnostic? error))
        {
            return error;
        }

        Assert.All(layout.Members, m => Assert.InRange(m.Offset, 0, layout.Size - m.Size));
        return null;
    }

    private static PatchDiagnostic? ReadAlternatives(byte[] table)
    {
        _ = AltInstrDetector.TryDetect(table, Text, 64, 0, (a, _) => a.Value >= Text - 0x10000, (a, _) => a.Value < Text + 0x100000,
            out AltInstrTable? read, out PatchDiagnostic? error);
        foreach (AltInstrFormat format in AltInstrFormat.All)
        {
            _ = AltInstrTable.TryRead(table, Text, format, 32, 0, out _, out _);
        }

        Assert.Equal(read is null, error is not null);
        return error;
    }

    private static PatchDiagnostic? ReadImageAlternatives(byte[] file)
    {
        if (!ElfImage.TryRead(file, out ElfImage? image, out PatchDiagnostic? error)
            || !AltInstrTable.TryRead(image, out AltInstrTable? table, out error))
        {
            return error;
        }

        foreach (AltInstr record in table.Records)
        {
            Assert.True(record.Length == 0 || image.TryGetBytes(record.Address, record.Length, out _));
        }

        return null;
    }

    private static PatchDiagnostic? Load(byte[] file, long maxImageSize)
    {
        var options = new UnpackLimits { MaxImageSize = maxImageSize };
        if (!KernelFile.TryLoad(file, options, out LoadedKernelFile? kernel, out PatchDiagnostic? error))
        {
            return error;
        }

        Assert.True(kernel.Kind == KernelFileKind.Elf || kernel.Image.Length <= maxImageSize);
        return null;
    }

    private static byte[] Elf(int bitness, ElfFileType type = ElfFileType.Executable)
    {
        ulong text = type == ElfFileType.Relocatable ? 0 : bitness == 64 ? Text : 0xc1000000;
        return new TestElf(bitness, type)
            .Code(".text", text, new byte[64])
            .Data(".rodata", text + 0x100, [1, 2, 3, 4])
            .NoBits(".bss", text + 0x200, 0x1000)
            .Load(".text", ".rodata")
            .Symbols(("startup", text, 4, ElfSymbolType.Function, 1), ("pv_ops", text + 0x100, 4, ElfSymbolType.Data, 2))
            .Build();
    }

    private static byte[] Btf()
    {
        var btf = new TestBtf();
        int number = btf.Int("int", 4);
        int pointer = btf.Pointer(0);
        int calleeSave = btf.Struct("paravirt_callee_save", 8, new Member("func", pointer, 0));
        int nested = btf.Struct("", 24, new Member("both", btf.Array(calleeSave, number, 2), 0),
            new Member("last", btf.Const(btf.Typedef("op_t", pointer)), 128));
        int choice = btf.Union("choice", 8, new Member("", pointer, 0), new Member("number", number, 0));
        btf.Other(13, 2, "", 0, new byte[16]);
        btf.Struct(
            "ops", 40, new Member("first", nested, 0), new Member("", choice, 192), new Member("rest", btf.Volatile(calleeSave), 256));
        return btf.Build();
    }

    private static byte[] Alternatives()
    {
        // Relative records with flags: site 0x1000 before, replacement 0x2000 behind.
        byte[] one = [0, 0xf0, 0xff, 0xff, 0, 0x20, 0, 0, 0x10, 0x01, 1, 0, 6, 1];
        byte[] direct = [0, 0xf0, 0xff, 0xff, 0, 0x20, 0, 0, 0x75, 0x00, 2, 0, 6, 5];
        return [.. one, .. direct, .. one, .. direct, .. one];
    }

    private static byte[] ImageWithAlternatives() => new TestElf()
        .Code(".text", Text, new byte[0x100])
        .Data(AltInstrTable.SectionName, Text + 0x1000, Alternatives())
        .Code(AltInstrTable.ReplacementSectionName, Text + 0x3000, new byte[0x100])
        .Build();
}
