using System.Globalization;
using PvPatch.KernelTests.Harness;
using PvPatch.Linux.Files;
using PvPatch.Linux.Symbols;

namespace PvPatch.KernelTests;

/// <summary>The symbols decoded from a kernel's file against what the same kernel, booted, prints in /proc/kallsyms.</summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class SymbolTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    public static TheoryData<string> All =>
    [
        Kernels.Bullseye.ToString(),
        Kernels.Bookworm.ToString(),
        Kernels.BookwormI386.ToString(),
        Kernels.Trixie.ToString(),
        Kernels.Sid.ToString(),
    ];

    [Theory]
    [MemberData(nameof(All))]
    public void Every_symbol_of_the_booted_kernel_is_decoded_from_its_file_and_no_other(string request)
    {
        BootedKernel booted = fixture.Boot(PackageRequest.Parse(request));
        List<string> expected = CoreLines(booted.Report.Kallsyms);
        List<string> decoded = Lines(Load(booted), booted);

        output.WriteLine(
            $"{booted.Package?.Package} {booted.Package?.Version}: {decoded.Count} decoded, {expected.Count} in /proc/kallsyms");
        Assert.True(expected.Count > 40_000, $"only {expected.Count} symbols: is this /proc/kallsyms?");
        Assert.Equal([], expected.Except(decoded).Take(10));
        Assert.Equal([], decoded.Except(expected).Take(10));

        // Not only the same set: the kernel prints them in the order of its tables, aliases and doubles included.
        Assert.True(expected.SequenceEqual(decoded), "the order differs");
    }

    [Theory]
    [MemberData(nameof(All))]
    public void The_listing_of_the_booted_kernel_is_read_and_gives_the_same_answers(string request)
    {
        BootedKernel booted = fixture.Boot(PackageRequest.Parse(request));
        KernelSymbols decoded = Load(booted);
        byte[] text = System.Text.Encoding.Latin1.GetBytes(booted.Report.Kallsyms);
        Assert.True(KernelSymbols.TryReadKallsyms(text, out KernelSymbols? listed, out PatchDiagnostic? error), error?.ToString());

        Assert.Equal(KernelSymbolSource.KallsymsListing, listed.Source);
        Assert.Equal(KernelSymbolSource.Kallsyms, decoded.Source);
        Assert.True(decoded.All.SequenceEqual(listed.All));
        foreach (string name in booted.Report.Symbols.Keys.Where(static (_, i) => i % 37 == 0))
        {
            Assert.Equal(listed.FindAll(name), decoded.FindAll(name));
            Assert.True(decoded.TryGetAddress(name, out VirtualAddress address));
            Assert.True(listed.TryGetAddress(name, out VirtualAddress same) && same == address, name);
            Assert.Contains(booted.Report.Symbols[name], decoded.FindAll(name).Select(static s => s.Address.Value));
            Assert.True(decoded.TryGetName(address, out string? found, out long offset));
            Assert.Equal(0, offset);
            Assert.Contains(found, decoded.FindAt(address).Select(static s => s.Name));
        }
    }

    [Fact]
    public void A_symbol_that_differs_is_noticed()
    {
        BootedKernel booted = fixture.Boot(Kernels.Bookworm);
        List<string> decoded = Lines(Load(booted), booted);
        List<string> otherKernel = CoreLines(fixture.Boot(Kernels.Trixie).Report.Kallsyms);
        List<string> oneOff = CoreLines(booted.Report.Kallsyms.Replace(" _paravirt_nop\n", " _paravirt_nop_\n", StringComparison.Ordinal));

        Assert.False(otherKernel.SequenceEqual(decoded));
        Assert.Single(oneOff.Except(decoded));
        Assert.Single(decoded.Except(oneOff));
    }

    private static KernelSymbols Load(BootedKernel booted)
    {
        Require.Unpacking(booted.ImagePath);
        if (!KernelFile.TryLoad(booted.ImagePath, null, out LoadedKernelFile? file, out PatchDiagnostic? error)
            || !ElfImage.TryRead(file.Image, out ElfImage? image, out error)
            || !KernelSymbols.TryFromImage(image, out KernelSymbols? symbols, out error))
        {
            throw new PatchException(error);
        }

        return symbols;
    }

    /// <summary>Lines as the kernel prints them: as many digits as an address has, type, name.</summary>
    private static List<string> Lines(KernelSymbols symbols, BootedKernel booted)
    {
        string format = booted.Options.Architecture == "i386" ? "x8" : "x16";
        return [.. symbols.All.Select(s => $"{s.Address.Value.ToString(format, CultureInfo.InvariantCulture)} {s.Type} {s.Name}")];
    }

    /// <summary>What belongs to the kernel itself; modules, BPF programs and trampolines have a word in brackets.</summary>
    private static List<string> CoreLines(string kallsyms) =>
        [.. kallsyms.Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Where(static line => !line.Contains('[', StringComparison.Ordinal))];
}
