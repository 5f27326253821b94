using PvPatch.Linux.Modules;
using PvPatch.Linux.Tests.Fuzz;
using PvPatch.Plans;

namespace PvPatch.Linux.Tests.Modules;

/// <summary>Damaged modules: a plan that can be applied and taken back, or a diagnostic.</summary>
public sealed class ModuleFuzzTests
{
    private const int Usual = 4000;

    [Theory]
    [InlineData(64, false)]
    [InlineData(64, true)]
    [InlineData(32, false)]
    public void Modules_survive_damage(int bitness, bool directCalls)
    {
        var source = new ModuleSource(bitness, directCalls);
        KernelImage kernel = source.Kernel();
        var planner = new KernelPlanner();
        byte[] whole = source.Assemble();
        byte[] small = source.Assemble(".text\nsite 8, \"nop\"\nsite 5, \"nop\"\nalternative NOT_XENPV, \"cli\"\nret\n");

        // Code tells nothing of the reader, so one of the two is nearly all tables.
        FuzzRun.Run([whole, small], FuzzRun.Count(Usual), file => Read(file, kernel, planner, source.TextAddress), 64, 4 << 20, "PV");
    }

    private static PatchDiagnostic? Read(byte[] file, KernelImage kernel, KernelPlanner planner, ulong text)
    {
        byte[] before = [.. file];
        if (!KernelModule.TryOpen(file, out KernelModule? module, out PatchDiagnostic? error)
            || !module.TryPlace(kernel, ModulePlacement.At(text), out PlacedModule? placed, out error))
        {
            return error;
        }

        Assert.Equal(before, file);
        if (!planner.TryPlan(placed, new BootMachine(), out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics))
        {
            return diagnostics[0];
        }

        byte[] original = placed.Elf.File.ToArray();
        Assert.True(plan.TryApply(placed.Code, out ApplyResult first));
        Assert.Equal(0, plan.Apply(placed.Code).Written);
        Assert.Equal(first.Written, plan.Revert(placed.Code).Written);
        Assert.Equal(original, placed.Elf.File.ToArray());
        return null;
    }
}
