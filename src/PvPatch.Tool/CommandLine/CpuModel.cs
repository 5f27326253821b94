using System.Diagnostics.CodeAnalysis;
using PvPatch.Machine;

namespace PvPatch.Tool.CommandLine;

/// <summary>
/// Processors as far as kernels up to 5.12 choose their nops by them (<c>ideal_nops</c>, arch/x86/kernel/alternative.c of 5.10).
/// </summary>
/// <param name="Name">The value of <c>--cpu</c>.</param>
/// <param name="Nops64">The nops a 64-bit kernel takes.</param>
/// <param name="Nops32">The nops a 32-bit kernel takes.</param>
internal sealed record CpuModel(string Name, NopStyle Nops64, NopStyle Nops32)
{
    /// <summary>The models, the usual one of each family of nops first.</summary>
    public static IReadOnlyList<CpuModel> All { get; } =
    [
        new("intel", NopStyle.P6, NopStyle.P6),
        new("amd", NopStyle.P6, NopStyle.P6), // family 16 and later
        new("hygon", NopStyle.P6, NopStyle.P6),
        new("amd-k8", NopStyle.K8, NopStyle.K8), // family 15
        new("intel-core", NopStyle.K8, NopStyle.K8), // family 6, models 0x0f to 0x2f without Atoms: Core 2 to Westmere
        new("amd-k7", NopStyle.K8, NopStyle.K7),
        new("other", NopStyle.K8, NopStyle.Intel),
    ];

    public static bool TryGet(string name, [NotNullWhen(true)] out CpuModel? model)
    {
        model = All.FirstOrDefault(m => m.Name.Equals(name, StringComparison.OrdinalIgnoreCase));
        return model is not null;
    }

    /// <summary>The usual model of a family of nops.</summary>
    public static CpuModel With(NopStyle nops, int bitness) => All.First(m => m.Nops(bitness) == nops);

    public NopStyle Nops(int bitness) => bitness == 64 ? Nops64 : Nops32;
}
