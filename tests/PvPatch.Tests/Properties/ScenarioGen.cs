using FsCheck;
using FsCheck.Fluent;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Properties;

/// <summary>Random cases, and how a failing one is made smaller.</summary>
internal static class ScenarioGen
{
    private static readonly CallConvention[] s_conventions64 =
        [CallConvention.SysV, CallConvention.KernelSysV, CallConvention.WindowsX64, CallConvention.CalleeSave,
            CallConvention.StaticRegisters];

    private static readonly CallConvention[] s_conventions32 =
        [CallConvention.I386RegParm, CallConvention.CalleeSave, CallConvention.StaticRegisters];

    public static Arbitrary<Scenario> Scenarios { get; } = Arb.From(Gen.Elements(32, 64, 64).SelectMany(Scenario), Shrink);

    public static Gen<RegisterSet> Registers { get; } = Gen.Frequency(
        (2, Gen.Constant(RegisterSet.All)),
        (1, Gen.Constant(RegisterSet.None)),
        (1, Gen.Constant(RegisterSet.Flags)),
        (2, Gen.Constant(RegisterSet.Rax | RegisterSet.Flags)),
        (3, Gen.Constant(CallConvention.KernelSysV.DestroyedBy(64))),
        (3, Gen.Choose(0, 0x3ffff).Select(bits => RegisterSet.FromBits((uint)bits))));

    private static Gen<Scenario> Scenario(int bitness) =>
        from high in Gen.Elements(true, false)
        from slots in Slot(bitness).ListOf(6)
        from a in Op(bitness).ListOf(6)
        from b in Op(bitness).ListOf(6)
        from c in Op(bitness).ListOf(6)
        from kinds in Site().ListOf(4)
        from sites in Gen.Sized(
            size => Gen.Choose(0, Math.Min(40, 1 + size)).SelectMany(n => Gen.OneOf(Site(), SiteLike(kinds), SiteLike(kinds)).ListOf(n)))
        from room in Gen.Elements(true, false)
        from nops in Gen.Choose(0, 3)
        from seed in Gen.Choose(0, int.MaxValue)
        select new Scenario(bitness, high, [.. slots], [[.. a], [.. b], [.. c]], [.. sites], room, nops, seed);

    private static Gen<SlotSpec> Slot(int bitness) =>
        from kind in Gen.Frequency((4, Gen.Constant(SlotKind.Call)), (1, Gen.Constant(SlotKind.Jump)))
        from convention in Gen.Elements(bitness == 64 ? s_conventions64 : s_conventions32)
        select new SlotSpec(kind, convention);

    private static Gen<OpSpec> Op(int bitness) =>
        from kind in Gen.Frequency((4, Gen.Elements(Enum.GetValues<OpKind>())), (1, Gen.Constant(OpKind.CallWithCaller)))
        from body in Gen.Choose(0, Bodies.Of(bitness).Count - 1)
        from target in Gen.Choose(0, 7)
        select new OpSpec(kind, body, target);

    private static Gen<SiteSpec> Site() =>
        from gap in Gap()
        from slot in Gen.Choose(0, 5)
        from budget in Gen.Frequency((3, Gen.Choose(5, 8)), (3, Gen.Choose(1, 16)), (1, Gen.Choose(17, 40)))
        from clobbers in Registers
        from traits in Gen.Frequency((5, Gen.Constant(SiteTraits.None)), (1, Gen.Constant(SiteTraits.NoStack)))
        from form in Gen.Elements(Enum.GetValues<SiteForm>())
        from tail in Gen.Choose(0, 2)
        select new SiteSpec(gap, slot, budget, clobbers, traits, form, tail);

    /// <summary>
    /// A site like one of a few: real tables hold the same kinds of site again and again, and the engine goes a short way for those.
    /// </summary>
    private static Gen<SiteSpec> SiteLike(IEnumerable<SiteSpec> kinds) =>
        from kind in Gen.Elements(kinds.ToArray())
        from gap in Gap()
        select kind with { Gap = gap };

    private static Gen<int> Gap() => Gen.Frequency((3, Gen.Constant(0)), (3, Gen.Choose(1, 20)), (1, Gen.Choose(64, 300)));

    private static IEnumerable<Scenario> Shrink(Scenario scenario)
    {
        int count = scenario.Sites.Count;
        if (count > 2)
        {
            yield return scenario with { Sites = [.. scenario.Sites.Take(count / 2)] };
            yield return scenario with { Sites = [.. scenario.Sites.Skip(count / 2)] };
        }

        for (int i = 0; i < count; i++)
        {
            yield return scenario with { Sites = [.. scenario.Sites.Where((_, index) => index != i)] };
        }

        if (scenario.Room)
        {
            yield return scenario with { Room = false };
        }
    }
}
