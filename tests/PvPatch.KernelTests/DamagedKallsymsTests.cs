using System.Globalization;
using PvPatch.KernelTests.Harness;
using PvPatch.Linux;
using PvPatch.Linux.Boot;
using PvPatch.Linux.Elf;
using PvPatch.Linux.Symbols;

namespace PvPatch.KernelTests;

/// <summary>
/// Real kernels with damage in their read-only data, most of which is kallsyms: symbols or a diagnostic, never an exception.
/// <c>PVPATCH_FUZZ_COUNT</c> sets the number of inputs for each kernel, <c>PVPATCH_FUZZ_SEED</c> the first seed.
/// </summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class DamagedKallsymsTests(BootedKernelFixture fixture)
{
    private const int Usual = 20;
    private const int UsualSeed = 20_200_813;

    [SkippableTheory]
    [MemberData(nameof(SymbolTests.All), MemberType = typeof(SymbolTests))]
    public void Damage_gives_symbols_or_a_diagnostic(string request)
    {
        DebianKernel kernel = fixture.Fetch(PackageRequest.Parse(request));
        Assert.True(KernelFile.TryLoad(kernel.ImagePath, null, out LoadedKernelFile? file, out PatchDiagnostic? error), error?.ToString());
        ElfImage image = ElfImage.Read(file.Image);
        Assert.True(image.TryGetSection(".rodata", out ElfSection? section));
        Memory<byte> data = image.GetBytes(section);
        Assert.True(KernelSymbols.TryFromImage(image, out KernelSymbols? whole, out error), error?.ToString());

        int count = Setting("PVPATCH_FUZZ_COUNT", Usual);
        int first = Setting("PVPATCH_FUZZ_SEED", UsualSeed);
        int refused = 0;
        for (int i = 0; i < count; i++)
        {
            int seed = unchecked(first + i);
            List<(int Place, byte Old)> undo = Damage(data.Span, new Random(seed));
            refused += Read(image, whole.Count, seed) ? 0 : 1;

            // In the order in which it was done a place hit twice would keep its damage.
            for (int j = undo.Count - 1; j >= 0; j--)
            {
                data.Span[undo[j].Place] = undo[j].Old;
            }
        }

        Assert.True(refused > 0 || count < Usual, "no damage was noticed: did it hit the tables at all?");
        Assert.Equal(whole.Count, KernelSymbols.TryFromImage(image, out KernelSymbols? again, out _) ? again.Count : 0);
    }

    private static bool Read(ElfImage image, int most, int seed)
    {
        try
        {
            if (!KernelSymbols.TryFromImage(image, out KernelSymbols? symbols, out PatchDiagnostic? error))
            {
                Assert.InRange(error.Code, KernelDiagnosticCodes.KallsymsNotFound, KernelDiagnosticCodes.KallsymsBadAddresses);
                return false;
            }

            Assert.InRange(symbols.Count, most - 255, most + 255);
            Assert.NotEmpty(symbols[seed % symbols.Count].Name);
            Assert.True(symbols.TryGetName(symbols[symbols.Count / 2].Address, out _, out _));
            return true;
        }
        catch (Exception exception) when (exception is not Xunit.Sdk.XunitException)
        {
            throw new InvalidOperationException($"PVPATCH_FUZZ_SEED={seed} made the reader throw", exception);
        }
    }

    private static List<(int Place, byte Old)> Damage(Span<byte> data, Random random)
    {
        List<(int Place, byte Old)> undo = [];
        int length = random.Next(3) == 0 ? 64 : 1;
        for (int hits = random.Next(1, 9); hits > 0; hits--)
        {
            int place = random.Next(data.Length - length);
            for (int i = place; i < place + length; i++)
            {
                undo.Add((i, data[i]));
                data[i] = (byte)(random.Next(4) == 0 ? 0xff : random.Next(256));
            }
        }

        return undo;
    }

    private static int Setting(string name, int usual) =>
        int.TryParse(Environment.GetEnvironmentVariable(name), NumberStyles.Integer, CultureInfo.InvariantCulture, out int value) ? value : usual;
}
