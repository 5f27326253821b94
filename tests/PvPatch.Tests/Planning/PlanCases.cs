using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Tests.Planning;

/// <summary>
/// A small image for tests of one thing: eight-byte sites one behind the other, each an indirect call through its slot's word.
/// </summary>
internal sealed class PlanCases
{
    public const ulong Start = 0x400000;
    public const ulong Table = 0x500000;
    public const ulong Target = 0x401000;
    private const int SiteLength = 8;

    public PlanCases(int count, int bitness = 64, RegisterSet? clobbers = null, int slots = 4)
    {
        Bitness = bitness;
        Code = new byte[count * SiteLength + 64];
        Code.AsSpan().Fill(0xcc);
        var sites = new PatchSite[count];
        for (int i = 0; i < count; i++)
        {
            ulong address = Start + (ulong)(i * SiteLength);
            ulong word = Table + (ulong)(i % slots * bitness / 8);
            int operand = bitness == 64 ? (int)(word - (address + 6)) : (int)word;
            byte[] call = [0xff, 0x15, .. BitConverter.GetBytes(operand), 0x66, 0x90]; // call through the table; xchg ax,ax
            call.CopyTo(Code, i * SiteLength);
            sites[i] = new PatchSite(address, i % slots, SiteLength, clobbers ?? RegisterSet.All);
        }

        Sites = SiteTable.Create(sites);
        Image = new CodeImage(bitness, new CodeSegment(".text", Start, Code));
        Layout = OpsLayout.Create(b => b.Table("ops", t =>
        {
            for (int i = 0; i < slots; i++)
            {
                t.Slot($"s{i}", convention: bitness == 64 ? CallConvention.SysV : CallConvention.I386RegParm);
            }
        }));
    }

    public int Bitness { get; }

    public byte[] Code { get; }

    public CodeImage Image { get; }

    public SiteTable Sites { get; }

    public OpsLayout Layout { get; }

    public Backend All(Operation operation) => Backend.Create("all", Layout, b =>
    {
        foreach (OpSlot slot in Layout.Slots)
        {
            b.Set(slot.Name, operation);
        }
    });

    public PatchPlan Plan(Operation operation, PlanOptions? options = null) =>
        new PatchPlanner().Plan(Image, Sites, All(operation), options);

    /// <summary>The findings of a plan that must not come about; the image must be untouched.</summary>
    public IReadOnlyList<PatchDiagnostic> Refused(
        Operation operation, PlanOptions? options = null, SiteTable? sites = null, CodeImage? image = null)
    {
        byte[] before = [.. Code];
        Assert.False(new PatchPlanner().TryPlan(
            image ?? Image, sites ?? Sites, All(operation), options, out PatchPlan? plan, out IReadOnlyList<PatchDiagnostic> diagnostics));
        Assert.Null(plan);
        Assert.Equal(before, Code);
        Assert.NotEmpty(diagnostics);
        return diagnostics;
    }
}
