using PvPatch.Mechanisms;

namespace PvPatch.Tests.Planning;

/// <summary>Layouts, backends and registries say which name was meant.</summary>
public sealed class OpsDiagnosticsTests
{
    private static readonly OpsLayout s_layout = OpsLayout.Create(
        b => b.Table("irq", t => t.Slot("irq_disable").Slot("irq_enable")).Table("mmu", t => t.Slot("set_pte")));

    [Theory]
    [InlineData("irq.irq_disabel", "irq.irq_disable")]
    [InlineData("irq_enable", "irq.irq_enable")]
    [InlineData("MMU.SET_PTE", "mmu.set_pte")]
    public void PV2001_an_unknown_slot_with_the_nearest_name(string name, string meant)
    {
        PatchDiagnostic found = Assert.Throws<PatchException>(() => s_layout[name]).Diagnostic;
        Assert.Equal(DiagnosticCodes.UnknownSlot, found.Code);
        Assert.Contains(name, found.Message, StringComparison.Ordinal);
        Assert.Contains($"\"{meant}\"", found.Help, StringComparison.Ordinal);
        Assert.Equal(found, Assert.Throws<PatchException>(() => Backend.Create("b", s_layout, b => b.Nop(name))).Diagnostic);
    }

    [Fact]
    public void PV2001_a_name_like_no_other_gets_the_list()
    {
        PatchDiagnostic found = Assert.Throws<PatchException>(() => s_layout["something.else"]).Diagnostic;
        Assert.Equal("Known: irq.irq_disable, irq.irq_enable, mmu.set_pte.", found.Help);
    }

    [Fact]
    public void PV2002_an_unknown_backend()
    {
        var registry = new OpsRegistry(s_layout);
        Assert.Equal("There are none yet.", Assert.Throws<PatchException>(() => registry["native"]).Diagnostic.Help);
        registry.Add("native", b => b.Nop("mmu.set_pte"));
        PatchDiagnostic found = Assert.Throws<PatchException>(() => registry.Add("kvm", static _ => { }, inherits: "nativ")).Diagnostic;
        Assert.Equal(DiagnosticCodes.UnknownBackend, found.Code);
        Assert.Contains("\"native\"", found.Help, StringComparison.Ordinal);
    }

    [Fact]
    public void PV2003_a_name_given_twice()
    {
        Assert.Equal(DiagnosticCodes.DuplicateName, Assert.Throws<PatchException>(
            () => OpsLayout.Create(b => b.Table("a", static _ => { }).Table("a", static _ => { }))).Diagnostic.Code);
        PatchDiagnostic slot = Assert.Throws<PatchException>(() => OpsLayout.Create(b => b.Table("a", t => t.Slot("x").Slot("x"))))
            .Diagnostic;
        Assert.Equal(DiagnosticCodes.DuplicateName, slot.Code);
        Assert.Contains("a.x", slot.Message, StringComparison.Ordinal);
        var registry = new OpsRegistry(s_layout);
        registry.Add("native", static _ => { });
        Assert.Equal(
            DiagnosticCodes.DuplicateName, Assert.Throws<PatchException>(() => registry.Add("native", static _ => { })).Diagnostic.Code);
        Assert.Single(registry.Backends);
    }

    [Fact]
    public void PV2004_a_backend_of_another_layout()
    {
        OpsLayout other = OpsLayout.Create(b => b.Table("x", t => t.Slot("y")), "other");
        PatchDiagnostic found = Assert.Throws<PatchException>(
            () => new OpsRegistry(s_layout).Add(Backend.Create("b", other, static _ => { }))).Diagnostic;
        Assert.Equal((DiagnosticCodes.WrongLayout, "other", "ops"), (found.Code, found.Found, found.Expected));
    }

    [Fact]
    public void Deriving_leaves_the_first_backend_as_it_was_and_inherits_the_rest()
    {
        Backend native = Backend.Create("native", s_layout, b => b.Nop("irq.irq_disable").Call("mmu.set_pte", 0x1000));
        Backend kvm = native.Derive("kvm", b => b.Retarget("mmu.set_pte", 0x2000, "kvm_set_pte"));
        Assert.Equal(0x1000UL, native["mmu.set_pte"].Target!.Value.Value);
        Assert.Equal(0x2000UL, kvm["mmu.set_pte"].Target!.Value.Value);
        Assert.Same(Operation.Nop, kvm["irq.irq_disable"]);
        Assert.Same(Operation.Missing, kvm["irq.irq_enable"]);
        Assert.Equal(OperationKind.Call, Operation.Nop.Retarget(0x3000).Kind);
    }
}
