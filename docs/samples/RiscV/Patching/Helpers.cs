using System.Runtime.InteropServices;
using RiscV.Host;
using RiscV.Isa;
using RiscV.Translator;

namespace RiscV.Patching;

/// <summary>
/// What generated code calls in C#. UnmanagedCallersOnly: such a method has an address that never moves. No exception may leave it, for the
/// frames above it are generated and can't be unwound; it is kept and thrown again when the guest has been left.
/// </summary>
internal static unsafe class Helpers
{
    [UnmanagedCallersOnly]
    public static ulong Access(ulong address, ulong value, ulong site, CpuState* cpu, int op)
    {
        TranslatorEngine engine = TranslatorEngine.Of(cpu);
        try
        {
            engine.Observer?.Access(engine.PointAt(site).Pc, (Op)op, address);
        }
        catch (Exception e)
        {
            engine.Fail(e);
        }

        return GuestMemory.Access(cpu->Window, (Op)op, address, value);
    }

    [UnmanagedCallersOnly]
    public static void Block(ulong site, CpuState* cpu)
    {
        TranslatorEngine engine = TranslatorEngine.Of(cpu);
        try
        {
            engine.Profile.Enter(engine.PointAt(site).Pc);
        }
        catch (Exception e)
        {
            engine.Fail(e);
        }
    }
}
