using PvPatch.KernelTests.Harness;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;

namespace PvPatch.KernelTests.Damage;

/// <summary>
/// Every reader on real kernels and modules with damage in what it reads. A usual run is short; <c>PVPATCH_FUZZ_COUNT=1000000</c>
/// gives each reader a million inputs, spread over the files it can read.
/// </summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class DamagedFileTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    private const int Usual = 100;

    private static readonly PackageRequest[] s_all = [
        Kernels.Bullseye, Kernels.Bookworm, Kernels.Trixie, Kernels.Sid, Kernels.BookwormI386];

    public static TheoryData<string> KernelReaders => [.. RealReader.KernelReaders];

    [Theory]
    [MemberData(nameof(KernelReaders))]
    public void Damage_in_a_kernel_gives_a_result_or_a_diagnostic(string reader)
    {
        List<(RealReader Reader, byte[] File)> files = [];
        foreach (PackageRequest request in s_all)
        {
            byte[] file = Unpacked(fixture.Fetch(request));
            RealReader one = RealReader.OfKernel(reader, Symbols(file));
            if (reader == "kallsyms")
            {
                RealReader.KeepReadOnlyData(file);
            }

            if (one.Regions(file).Count > 0)
            {
                files.Add((one, file));
            }
        }

        Assert.True(files.Count >= 3, $"only {files.Count} of the kernels have what the reader reads");
        Run(files);
    }

    [Fact]
    public void Damage_in_a_packed_kernel_gives_a_result_or_a_diagnostic() =>
        Run([.. s_all.Select(request => (RealReader.OfBzImages, File.ReadAllBytes(fixture.Fetch(request).ImagePath)))]);

    [Fact]
    public void Damage_in_a_module_gives_a_result_or_a_diagnostic()
    {
        Require.PackageFetching();
        Require.Tool("xz", "xz-utils");
        string directory = Directory.CreateTempSubdirectory("pvpatch-damage-").FullName;
        try
        {
            List<(RealReader Reader, byte[] File)> files = [];
            foreach (PackageRequest request in s_all[1..3])
            {
                DebianModules modules = Require.Available(() => DebianModules.Fetch(request, "irqbypass", "kvm", "mce-inject"));
                RealReader reader = RealReader.OfModules(TestedKernels.Load(modules.Kernel.ImagePath));
                files.Add((reader, File.ReadAllBytes(modules.Unpack(directory)[^1])));
            }

            Run(files);
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    private static byte[] Unpacked(DebianKernel kernel)
    {
        Require.Unpacking(kernel.ImagePath);
        return KernelFile.TryLoad(kernel.ImagePath, null, out LoadedKernelFile? file, out PatchDiagnostic? error)
            ? file.Image.ToArray() : throw new PatchException(error);
    }

    private static KernelSymbols Symbols(byte[] file) =>
        KernelSymbols.TryFromImage(ElfImage.Read(file), out KernelSymbols? symbols, out PatchDiagnostic? error)
            ? symbols : throw new PatchException(error);

    /// <summary>The last file, the smallest of the kernels, takes several times less than the others and gets half of the inputs.</summary>
    private static int Share(int count, int files, bool isLast) =>
        isLast || files == 1 ? (count + 1) / 2 : ((count / 2) + files - 2) / (files - 1);

    private void Run(List<(RealReader Reader, byte[] File)> files)
    {
        int count = DamageRun.CountFor(Usual);
        int taken = 0;
        int done = 0;
        foreach ((RealReader reader, byte[] file) in files)
        {
            var run = new DamageRun(reader);
            run.Give(file, Share(count, files.Count, file == files[^1].File));
            output.WriteLine(run.Summary);
            taken += run.Taken;
            done += run.Count;
        }

        Assert.True(
            count < Usual || (taken > 0 && taken < done), $"{taken} of {done} inputs were taken: the damage says nothing about the reader");
    }
}
