using PvPatch.KernelTests.Harness;
using PvPatch.Linux.BootText;
using PvPatch.Linux.Dumps;
using PvPatch.Tests.Shared;
using FoundMemory = PvPatch.Linux.Dumps.KernelMemory;
using SavedMemory = PvPatch.KernelTests.Harness.KernelMemory;

namespace PvPatch.KernelTests;

/// <summary>
/// The state inferred from the text of a booted kernel: it gives that text back, and does not follow somebody who changed it.
/// </summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class InferredTextTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    private const int Flips = 1000;

    public static TheoryData<string, string> Quick => TestedKernels.Cells(["bookworm", "trixie"], [BootConfiguration.Named("native")]);

    public static TheoryData<string, string> Rest => TestedKernels.Cells(
        ["bullseye", "bookworm", "trixie", "sid"], BootConfiguration.All.Concat(BootConfiguration.Mitigations),
        ("bookworm", "native"), ("trixie", "native"), ("sid", "lfence"));

    [Theory]
    [MemberData(nameof(Quick))]
    public void Text_is_as_predicted_from_itself(string kernel, string boot) => Check(kernel, boot);

    [Theory]
    [MemberData(nameof(Rest))]
    [Trait("Category", "Matrix")]
    public void Text_of_the_matrix_is_as_predicted_from_itself(string kernel, string boot) => Check(kernel, boot);

    private void Check(string name, string boot)
    {
        BootedKernel booted = fixture.Boot(TestedKernels.Named(name), BootConfiguration.Named(boot).Options);
        Assert.True(TextKernel.TryOf(TestedKernels.Load(booted.ImagePath), out TextKernel? kernel, out _));
        SavedMemory saved = booted.Ready;
        using MemoryFile file = MemoryFile.Open(saved.FilePath, new VirtualAddress(saved.Start));
        FoundMemory memory = KernelMemoryLocator.Locate(kernel.Elf, file);
        (BootState state, TextComparison comparison, TextImage text) = Compare(kernel, memory, $"{name} {boot}");

        // What was inferred is what the kernel's data says.
        Assert.True(BootStateReader.TryRead(kernel, memory, out BootState? read, out _));
        int decided = 0;
        for (int feature = 0; feature < 32 * state.Features.Values.Count; feature++)
        {
            if (state.Features.Has(feature) is bool has)
            {
                decided++;
                Assert.True(read.Features.Has(feature) == has, $"feature {feature / 32}*32+{feature % 32}: inferred {has}");
            }
        }

        output.WriteLine($"  {decided} features decided");
        Assert.Equal(read.ReturnThunk, state.ReturnThunk ?? read.ReturnThunk);
        Assert.Equal(0, comparison.Unexplained);
        CheckFlips(kernel, text, saved, $"{name} {boot}, {Flips} bits flipped");
    }

    private (BootState State, TextComparison Comparison, TextImage Text) Compare(TextKernel kernel, FoundMemory memory, string title)
    {
        BootState state = BootStateInference.Infer(kernel, memory);
        bool predicted = TextPredictor.TryPredict(kernel, state, out TextImage? text, out IReadOnlyList<PatchDiagnostic> findings);
        Assert.True(predicted, string.Join("\n", findings));
        var comparison = TextComparison.Compare(text!, memory);
        output.WriteLine(
            $"{title}: {comparison.Changed} changed, {comparison.AsBooted} as booted, {comparison.Unexplained} unexplained, "
                + $"{comparison.Open} open");
        foreach (TextDifference difference in comparison.Differences.Take(10))
        {
            _ = kernel.Image.Symbols!.TryGetName(difference.Address, out string? name, out long offset);
            output.WriteLine($"  {difference} ({name ?? "?"}+0x{offset:x})");
        }

        return (state, comparison, text!);
    }

    /// <summary>Flips bits of bytes that the kernel changed; each must be found, but where one site alone says what a key is.</summary>
    private void CheckFlips(TextKernel kernel, TextImage text, SavedMemory saved, string title)
    {
        Random random = TestSeed.NewRandom();
        string copy = saved.FilePath + ".flipped";
        byte[] bytes = File.ReadAllBytes(saved.FilePath);
        TextSection section = text.Sections.Single(static s => s.Name == ".text");
        int start = (int)(section.Address.Value - saved.Start);
        List<int> changed = [];
        for (int i = 0; i < section.Length; i++)
        {
            if (bytes[start + i] != section.Original[i] && !section.IsOpen(i))
            {
                changed.Add(i);
            }
        }

        var flipped = new HashSet<int>();
        while (flipped.Count < Flips)
        {
            int at = changed[random.Next(changed.Count)];
            if (flipped.Add(at))
            {
                bytes[start + at] ^= (byte)(1 << random.Next(8));
            }
        }

        File.WriteAllBytes(copy, bytes);
        using MemoryFile file = MemoryFile.Open(copy, new VirtualAddress(saved.Start));
        FoundMemory memory = KernelMemoryLocator.Locate(kernel.Elf, file);
        (_, TextComparison comparison, _) = Compare(kernel, memory, title);
        int found = flipped.Count(f => comparison.Differences.Any(
            d => section.Address + f >= d.Address && section.Address + f < d.Address + d.Found.Length));
        output.WriteLine($"  {found} of {Flips} found");
        File.Delete(copy);
        Assert.InRange(found, 990, Flips);
    }
}
