using BenchmarkDotNet.Attributes;
using PvPatch.Plans;

namespace PvPatch.Benchmarks;

/// <summary>PvPatch's own part of the comparison. One operation patches 100,000 sites; figures are for one site.</summary>
/// <remarks>
/// An iteration is one call, for the image must be put back before each; the warm-up is long because the runtime compiles a method
/// for good only when it has been called some thirty times.
/// </remarks>
[MemoryDiagnoser]
[SimpleJob(warmupCount: 80, iterationCount: 60, invocationCount: 1)]
public abstract class OfflineBenchmarks
{
    private OfflineRivals? _rivals;

    [Params(Shape.Even, Shape.Kernel, Shape.Clobbers)]
    public Shape Shape { get; set; }

    private protected OfflineRivals Rivals => _rivals!;

    /// <summary>Makes the image; throws where two ways give different bytes.</summary>
    [GlobalSetup]
    public void Setup() => _rivals = new OfflineRivals(Shape);

    [IterationSetup]
    public void Reset() => Rivals.Reset();

    [IterationSetup(Targets = [nameof(ApplyAgain), nameof(PlanSwitch)])]
    public void ResetAndApply()
    {
        Rivals.Reset();
        Rivals.Apply();
    }

    [Benchmark(OperationsPerInvoke = Workload.DefaultSites)]
    public PatchPlan Plan() => Rivals.Plan();

    [Benchmark(OperationsPerInvoke = Workload.DefaultSites)]
    public ApplyResult Apply() => Rivals.Apply();

    [Benchmark(OperationsPerInvoke = Workload.DefaultSites)]
    public ApplyResult PlanAndApply() => Rivals.PlanAndApply();

    [Benchmark(OperationsPerInvoke = Workload.DefaultSites)]
    public ApplyResult ApplyAgain() => Rivals.Apply();

    [Benchmark(OperationsPerInvoke = Workload.DefaultSites)]
    public PatchPlan PlanSwitch() => Rivals.PlanSwitch();

    [Benchmark(OperationsPerInvoke = Workload.DefaultSites)]
    public void IcedBlockEncoder() => Rivals.BlockEncoder();
}

/// <summary>The comparison where a C compiler is on PATH: ratios are to the C loop.</summary>
public class AgainstCLoop : OfflineBenchmarks
{
    [Benchmark(Baseline = true, OperationsPerInvoke = Workload.DefaultSites)]
    public void CLoop() => Rivals.C();

    [Benchmark(OperationsPerInvoke = Workload.DefaultSites)]
    public void IcedEncoder() => Rivals.Encoder();
}

/// <summary>The comparison without a C compiler: ratios are to the reused Iced encoder.</summary>
public class AgainstEncoder : OfflineBenchmarks
{
    [Benchmark(Baseline = true, OperationsPerInvoke = Workload.DefaultSites)]
    public void IcedEncoder() => Rivals.Encoder();
}
