using PvPatch.Linux.Layouts;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Tests.Eras;

/// <summary>Layouts of the synthetic kernels: the known ones, and short ones as a user would write them.</summary>
internal static class EraLayouts
{
    public static OpsLayout Known(string name)
    {
        Assert.True(KernelLayouts.TryGet(name, out OpsLayout? layout), name);
        return layout;
    }

    public static OpsLayout Read(string text, string name = "mine")
    {
        Assert.True(KernelLayouts.TryRead(
            System.Text.Encoding.UTF8.GetBytes(text), name, out OpsLayout? layout, out PatchDiagnostic? error), error?.ToString());
        return layout;
    }
}
