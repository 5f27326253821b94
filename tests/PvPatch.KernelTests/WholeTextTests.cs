using PvPatch.KernelTests.Harness;
using PvPatch.Linux;
using PvPatch.Linux.BootText;
using PvPatch.Linux.Dumps;
using FoundMemory = PvPatch.Linux.Dumps.KernelMemory;
using SavedMemory = PvPatch.KernelTests.Harness.KernelMemory;

namespace PvPatch.KernelTests;

/// <summary>
/// The whole text of booted kernels: every byte of every executable section against the prediction from the file and the state read from
/// the kernel's data.
/// </summary>
[Collection(KernelCollection.Name)]
[Trait("Category", "Kernel")]
public sealed class WholeTextTests(BootedKernelFixture fixture, ITestOutputHelper output)
{
    private static readonly string[] s_kernels = ["bullseye", "bookworm", "trixie", "sid"];

    private static readonly HashSet<(string Kernel, string Boot)> s_quick = [("bookworm", "native"), ("trixie", "native")];

    public static TheoryData<string, string> Quick => TestedKernels.Cells(["bookworm", "trixie"], [BootConfiguration.Named("native")]);

    public static TheoryData<string, string> Rest => TestedKernels.Cells(s_kernels, BootConfiguration.All, [.. s_quick]);

    [Theory]
    [MemberData(nameof(Quick))]
    public void Every_byte_of_text_is_as_predicted(string kernel, string boot) => Check(kernel, boot);

    [Theory]
    [MemberData(nameof(Rest))]
    [Trait("Category", "Matrix")]
    public void Every_byte_of_text_of_the_matrix_is_as_predicted(string kernel, string boot) => Check(kernel, boot);

    // 7.2 ends in a crash with lfence: it fills what is left of a site with int3, and at a jmp *%r11 of 5 bytes one less than none is left.
    public static TheoryData<string, string> Mitigated => TestedKernels.Cells(s_kernels, BootConfiguration.Mitigations, ("sid", "lfence"));

    [Theory]
    [MemberData(nameof(Mitigated))]
    [Trait("Category", "Matrix")]
    public void Every_byte_of_text_is_as_predicted_whatever_the_mitigations(string kernel, string boot) => Check(kernel, boot);

    [Theory]
    [InlineData("bullseye")]
    [InlineData("bookworm")]
    [InlineData("trixie")]
    [InlineData("sid")]
    [Trait("Category", "Matrix")]
    public void Every_byte_of_text_of_a_kernel_that_chose_its_place_is_as_predicted(string kernel) =>
        Check(kernel, "native with KASLR", MachineOptions.Default with { Kaslr = true });

    private void Check(string kernel, string boot) => Check(kernel, boot, BootConfiguration.Named(boot).Options);

    private void Check(string kernel, string boot, MachineOptions options)
    {
        BootedKernel booted = fixture.Boot(TestedKernels.Named(kernel), options);
        KernelImage image = TestedKernels.Load(booted.ImagePath);
        Assert.True(TextKernel.TryOf(image, out TextKernel? text, out PatchDiagnostic? error), error?.ToString());
        Check(text, booted.AfterPatching, $"{kernel} {boot}, after patching");
        Check(text, booted.Ready, $"{kernel} {boot}, ready");
    }

    private void Check(TextKernel kernel, SavedMemory saved, string title)
    {
        using MemoryFile file = MemoryFile.Open(saved.FilePath, new VirtualAddress(saved.Start));
        FoundMemory memory = KernelMemoryLocator.Locate(kernel.Elf, file);
        Assert.True(BootStateReader.TryRead(kernel, memory, out BootState? state, out PatchDiagnostic? error), error?.ToString());
        bool predicted = TextPredictor.TryPredict(kernel, state, out TextImage? text, out IReadOnlyList<PatchDiagnostic> findings);
        Assert.True(predicted, string.Join("\n", findings));
        var comparison = TextComparison.Compare(text!, memory);
        output.WriteLine(
            $"{title}: {kernel.Rules}: {comparison.Bytes} bytes, {comparison.Changed} changed, {comparison.AsBooted} as booted, "
                + $"{comparison.Unexplained} unexplained, {comparison.NotCompared} not compared, {comparison.Open} open");
        foreach (MechanismBytes bytes in comparison.Mechanisms)
        {
            int sites = TextPredictor.Find(bytes.Mechanism)?.Count(kernel) ?? 0;
            output.WriteLine(
                $"  {TextMechanisms.NameOf(bytes.Mechanism)}: {sites} sites, {bytes.Changed} changed, {bytes.AsBooted} as booted, "
                    + $"{bytes.Wrong} wrong");
        }

        foreach (TextDifference difference in comparison.Differences.Take(30))
        {
            string place = kernel.Image.Symbols!.TryGetName(difference.Address, out string? name, out long offset)
                ? $"{name}+0x{offset:x}" : "?";
            output.WriteLine($"  {difference} ({place})");
        }

        Assert.Equal((0L, comparison.Changed), (comparison.Unexplained, comparison.AsBooted));
        Assert.Equal(0, comparison.Open);
    }
}
