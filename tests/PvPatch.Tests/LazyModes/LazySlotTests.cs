using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Paravirt;
using PvPatch.Plans;

namespace PvPatch.Tests.LazyModes;

/// <summary>The slots by which a kernel enters, leaves and flushes its lazy modes: natively nothing, under a hypervisor calls.</summary>
public sealed class LazySlotTests
{
    private const ulong Code = 0x400000;
    private const ulong Words = 0x500000;
    private const ulong Functions = 0x410000;

    private const string All =
        "cpu.start_context_switch cpu.end_context_switch mmu.lazy_mode.enter mmu.lazy_mode.leave mmu.lazy_mode.flush";

    private static readonly string[] s_slots =
    [
        "cpu.start_context_switch", "cpu.end_context_switch", "cpu.lazy_mode.enter", "cpu.lazy_mode.leave",
        "mmu.lazy_mode.enter", "mmu.lazy_mode.leave", "mmu.lazy_mode.flush",
    ];

    [Theory]
    [InlineData(64, "66 0f 1f 44 00 00")] // nopw 0(%rax,%rax,1)
    [InlineData(32, "8d b6 00 00 00 00")] // {disp32} lea 0(%esi),%esi
    public void Natively_they_are_nops_and_their_sites_vanish(int bitness, string nops)
    {
        (byte[] code, PatchPlan plan, CodeImage image) = Plan("native", bitness);
        Assert.Equal(s_slots.Length, plan.Count);
        plan.Apply(image);
        for (int i = 0; i < s_slots.Length; i++)
        {
            Assert.Equal(PatchAction.Nop, plan[i].Action);
            Assert.Equal(nops, HexBytes.Format(code.AsSpan(i * 6, 6)));
        }
    }

    [Theory]
    [InlineData("xen", 64, All)]
    [InlineData("xen", 32, All)]
    [InlineData("kvm", 64, "mmu.lazy_mode.enter mmu.lazy_mode.leave")]
    [InlineData("lguest", 32, All)]
    [InlineData("vmi", 32, "cpu.start_context_switch cpu.end_context_switch mmu.lazy_mode.enter mmu.lazy_mode.leave")]
    public void Under_a_hypervisor_they_are_called(string backend, int bitness, string called)
    {
        (_, PatchPlan plan, _) = Plan(backend, bitness);
        foreach (string slot in called.Split(' '))
        {
            SiteDecision site = plan[Array.IndexOf(s_slots, slot)];
            Assert.True(site.Action == PatchAction.Call, $"{slot}: {site}");
        }
    }

    private static (byte[] Code, PatchPlan Plan, CodeImage Image) Plan(string name, int bitness)
    {
        // Each site: call *word, six bytes.
        byte[] code = new byte[s_slots.Length * 6];
        OpsLayout layout = StandardLayout.For(bitness);
        var sites = new PatchSite[s_slots.Length];
        for (int i = 0; i < s_slots.Length; i++)
        {
            ulong word = Words + (ulong)(i * 8);
            int operand = (int)(bitness == 64 ? word - (Code + (ulong)(i * 6) + 6) : word);
            ((byte[])[0xff, 0x15, .. BitConverter.GetBytes(operand)]).CopyTo(code, i * 6);
            sites[i] = new PatchSite(Code + (ulong)(i * 6), layout[s_slots[i]].Index, 6, RegisterSet.All);
        }

        // Every function a backend asks for exists, each somewhere else.
        var known = new Dictionary<string, VirtualAddress>(StringComparer.Ordinal);
        var targets = new SlotTargets(function =>
        {
            if (!known.TryGetValue(function, out VirtualAddress address))
            {
                address = Functions + (ulong)(known.Count * 16);
                known.Add(function, address);
            }

            return address;
        });
        Backend backend = name switch
        {
            "native" => StandardBackends.Native(layout, bitness, targets),
            "xen" => StandardBackends.Xen(layout, bitness, targets),
            "kvm" => StandardBackends.Kvm(layout, bitness, targets, new KvmOptions { Features = KvmFeatures.MmuOp }),
            "lguest" => StandardBackends.Lguest(layout, targets),
            _ => StandardBackends.Vmi(layout, targets),
        };
        var image = new CodeImage(bitness, new CodeSegment(".text", Code, code));
        return (code, new PatchPlanner().Plan(image, SiteTable.Create(sites), backend), image);
    }
}
