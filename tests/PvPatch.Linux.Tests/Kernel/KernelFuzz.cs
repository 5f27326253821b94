using System.Diagnostics;
using System.Globalization;
using PvPatch.Linux.Files;
using PvPatch.Linux.Layouts;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Kernel;

/// <summary>
/// Holds everything behind a kernel's ELF file to its promises on damaged input: a plan or diagnostics and never an exception, an
/// end within the hang limit, memory within bounds, the file untouched; and a plan that can be applied and taken back.
/// </summary>
internal sealed class KernelFuzz(long allocationLimit)
{
    // Finds hangs, not slowness.
    private static readonly TimeSpan s_hangLimit = TimeSpan.FromSeconds(60);

    // Read once in a process, and no part of what one input takes.
    private readonly int _orders = KernelLayouts.Orders.Sum(static o => o.Layout.Count);

    private readonly KernelPlanner _planner = new();
    private readonly Dictionary<string, int> _codes = [];

    /// <summary>How many inputs were planned.</summary>
    public int Planned { get; private set; }

    /// <summary>How many inputs were given.</summary>
    public int Count { get; private set; }

    /// <summary>How often which code was given, with the most frequent first.</summary>
    public string Summary =>
        string.Create(CultureInfo.InvariantCulture,
        $"{Count} inputs, {Planned} planned; "
        + $"{string.Join(", ", _codes.OrderByDescending(static c => c.Value).Select(static c => $"{c.Key} {c.Value}"))}");

    /// <summary>Gives one input. Its bytes are the same afterwards.</summary>
    public void Give(byte[] file, string name)
    {
        Count++;
        long before = GC.GetAllocatedBytesForCurrentThread();
        var watch = Stopwatch.StartNew();
        KernelImage? image;
        PatchPlan? plan;
        PatchDiagnostic? error;
        try
        {
            plan = Plan(file, out image, out error);
        }
        catch (Exception exception)
        {
            throw new InvalidOperationException($"{name} made the reader throw", exception);
        }

        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.True(watch.Elapsed < s_hangLimit, $"{name} took {watch.Elapsed}");
        Assert.True(allocated <= allocationLimit, $"{name} allocated {allocated} bytes");
        if (plan is null)
        {
            Assert.True(error is { Severity: DiagnosticSeverity.Error } && error.Code.StartsWith("PV", StringComparison.Ordinal),
                $"{name}: {error}");
            _codes[error.Code] = _codes.GetValueOrDefault(error.Code) + 1;
            return;
        }

        Planned++;
        RoundTrip(plan, image!, name);
    }

    private PatchPlan? Plan(byte[] file, out KernelImage? image, out PatchDiagnostic? error)
    {
        image = null;
        if (!ElfImage.TryRead(file, out ElfImage? elf, out error) || !KernelImage.TryOpen(elf, out image, out error))
        {
            return null;
        }

        bool planned = _planner.TryPlan(image, "native", out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics);
        error = planned ? null : diagnostics[0];
        return plan;
    }

    private static void RoundTrip(PatchPlan plan, KernelImage image, string name)
    {
        ulong before = Sum(image);
        Assert.True(plan.TryApply(image.Code, out ApplyResult first), $"{name}: {string.Join("; ", first.Diagnostics)}");
        Assert.Equal(0, plan.Apply(image.Code).Written);
        Assert.Equal(first.Written, plan.Revert(image.Code).Written);
        Assert.True(before == Sum(image), $"{name}: reverting did not give the original bytes back");
    }

    private static ulong Sum(KernelImage image)
    {
        var hash = new HashCode();
        ulong length = 0;
        foreach (Images.CodeSegment segment in image.Code.Segments)
        {
            hash.AddBytes(segment.Bytes.Span);
            length += (ulong)segment.Bytes.Length;
        }

        return (length << 32) | (uint)hash.ToHashCode();
    }
}
