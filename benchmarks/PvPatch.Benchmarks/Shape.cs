namespace PvPatch.Benchmarks;

/// <summary>What the sites of a workload are like.</summary>
public enum Shape
{
    /// <summary>Every length from 5 to 16 equally often; everything may be destroyed.</summary>
    Even,

    /// <summary>Two thirds are 6 bytes long, as in a kernel; the rest 5 to 16. Everything may be destroyed.</summary>
    Kernel,

    /// <summary>As <see cref="Even"/>, but sites allow different registers to be destroyed, and some are left alone for it.</summary>
    Clobbers,
}
