using System.Globalization;
using PvPatch.Linux.Files;
using PvPatch.Linux.Tests.Fuzz;

namespace PvPatch.Linux.Tests.Kernel;

/// <summary>
/// Damaged kernel images. <c>PVPATCH_FUZZ_COUNT</c> and <c>PVPATCH_FUZZ_SEED</c> work as for the other readers. Real kernels are
/// damaged in PvPatch.KernelTests.
/// </summary>
public sealed class KernelFuzzTests(ITestOutputHelper output)
{
    private static readonly string[] s_tables = [".BTF", ".parainstructions", ".altinstructions", ".altinstr_replacement"];

    [Fact]
    public void Kernels_survive_damage_anywhere()
    {
        byte[] valid = SyntheticKernel.Complete().Build();
        var fuzz = new KernelFuzz(4 << 20);
        fuzz.Give(valid, "the undamaged kernel");
        Assert.Equal(1, fuzz.Planned);
        int first = FuzzRun.FirstSeed;
        for (int i = 0; i < FuzzRun.Count(3000); i++)
        {
            int seed = unchecked(first + i);
            fuzz.Give(new Mutator(seed).Mutate(valid), Name(seed));
        }

        Report(fuzz);
    }

    [Fact]
    public void Kernels_survive_damage_in_their_tables()
    {
        byte[] file = SyntheticKernel.Complete().Build();
        var fuzz = new KernelFuzz(4 << 20);
        DamageTables(file, fuzz, FuzzRun.Count(4000), FuzzRun.FirstSeed);
        Report(fuzz);
    }

    /// <summary>Damages headers and tables in place, one to four times, and mends them afterwards: large images are not copied.</summary>
    private static void DamageTables(byte[] file, KernelFuzz fuzz, int count, int first)
    {
        fuzz.Give(file, "the undamaged kernel");
        Assert.Equal(1, fuzz.Planned);
        (int Start, int Length)[] regions = Regions(file);
        for (int i = 0; i < count; i++)
        {
            int seed = unchecked(first + i);
            var damage = new TableDamage(seed);
            damage.Do(file, regions);
            fuzz.Give(file, Name(seed));
            damage.Undo(file);
        }

        int planned = fuzz.Planned;
        fuzz.Give(file, "the mended kernel");
        Assert.Equal(planned + 1, fuzz.Planned);
    }

    private static (int Start, int Length)[] Regions(byte[] file)
    {
        ElfImage elf = ElfImage.Read(file);
        Assert.True(KernelImage.TryOpen(elf, out KernelImage? kernel, out PatchDiagnostic? error), error?.ToString());
        Assert.True(elf.TryGetFileOffset(kernel.OpsTable, kernel.Layout.Count * 8, out long opsTable));
        Assert.True(elf.TryGetSection(".BTF", out ElfSection? btf));
        int sectionTable = (int)BitConverter.ToInt64(file, 40);
        return
        [
            (0, 64),
            (sectionTable, elf.Sections.Count * 64),
            ((int)opsTable, kernel.Layout.Count * 8),
            ((int)btf.FileOffset, 24),
            .. s_tables.Select(name => elf.Sections.Single(s => s.Name == name)).Select(s => ((int)s.FileOffset, (int)s.Size)),
        ];
    }

    private void Report(KernelFuzz fuzz)
    {
        output.WriteLine(fuzz.Summary);
        Assert.True(fuzz.Count < 1000 || (fuzz.Planned > 2 && fuzz.Planned < fuzz.Count),
            $"the damage says nothing about the reader: {fuzz.Summary}");
    }

    private static string Name(int seed) => string.Create(CultureInfo.InvariantCulture, $"PVPATCH_FUZZ_SEED={seed}");
}
