using Iced.Intel;
using PvPatch.Images;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Support;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>
/// Sites whose own code is a direct call of a listed function: they call it until their slot is switched, and are like any other from then
/// on.
/// </summary>
public sealed unsafe class DirectOriginalTests
{
    // mov edi,imm32 and the call: 10 bytes; a REX prefix on the mov makes them 11.
    private static readonly byte[] s_setUp = [0xbf, 0x78, 0x56, 0x34, 0x12];
    private static readonly byte[] s_longSetUp = [0x48, 0xc7, 0xc7, 0x78, 0x56, 0x34, 0x12];

    [Fact]
    public void A_call_of_five_bytes_takes_every_form_live_and_back()
    {
        GnuAssembler.RequireTools();
        using var code = new LiveCode();
        CodeBlock block = Commit(code, code.Two, []);
        LiveSite site = block[0];
        byte[] own = site.ToArray();
        Assert.Equal(5, own.Length);
        Assert.Equal((LiveSiteState.Original, LiveForm.Call, PatchAction.Call, (VirtualAddress?)code.Two, SiteClass.Atomic8),
            (site.State, site.Form, site.Action, site.Target, site.Class));
        Assert.Equal(2, LiveCode.Call(block));

        using LivePatcher patcher = code.Patcher();
        Assert.Equal(0, patcher.Revert().Written); // nothing was switched: its own call stays
        Assert.Equal(own, site.ToArray());
        patcher.Bind(block);
        Assert.Equal(own, site.ToArray());

        (Backend Backend, long Result, LiveForm Form)[] steps =
        [
            (code.Inlined, 1, LiveForm.OneInstruction), (code.Nops, 0, LiveForm.OneInstruction), (code.Outlined, 3, LiveForm.Island),
            (LeftAlone(code, code.Five), 5, LiveForm.Original), (code.Direct, 2, LiveForm.Call),
            (code.Direct.Derive("five", b => b.Call("t.first", code.Five, null, RegisterSet.Rax)), 5, LiveForm.Call),
        ];
        foreach ((Backend backend, long result, LiveForm form) in steps)
        {
            patcher.Switch(backend);
            Assert.Equal((result, form), (LiveCode.Call(block), site.Form));
        }

        // The slot was switched: from now on its original leads there.
        patcher.Revert();
        Assert.Equal((LiveSiteState.Original, LiveForm.Original, 5L), (site.State, site.Form, LiveCode.Call(block)));
        byte[] through = site.ToArray();
        Assert.Equal(0xe8, through[0]);
        VirtualAddress stub = site.End + BitConverter.ToInt32(through.AsSpan(1));
        VirtualAddress slot = code.Arena.SlotsOf(code.Layout).AddressOf(code.First);
        byte[] expected = GnuAssembler.Assemble(64, [new AssemblyPiece(stub.Value, $"jmp *{slot - (stub + 6)}(%rip)")])[0];
        Assert.Equal(expected, code.Arena.Memory.Span(stub, 6).ToArray());

        // One committed now does so at once; there is one jump for the slot.
        CodeBlock later = Commit(code, code.Two, []);
        Assert.Equal((LiveSiteState.Original, LiveForm.Original, 5L), (later[0].State, later[0].Form, LiveCode.Call(later)));
        Assert.Equal(stub, later[0].End + BitConverter.ToInt32(later[0].ToArray().AsSpan(1)));
        patcher.Bind(later);
        Assert.Equal((LiveForm.Call, (VirtualAddress?)code.Five), (later[0].Form, later[0].Target));
    }

    [Fact]
    public void Before_its_slot_is_switched_a_site_alone_can_be_given_a_body_and_gets_its_own_call_back()
    {
        using var code = new LiveCode();
        CodeBlock block = Commit(code, code.Two, []);
        byte[] own = block[0].ToArray();
        using LivePatcher patcher = code.Patcher();

        // Through the slot it would trap, so what leaves it to the slot is refused.
        Assert.False(patcher.TrySwitch(LeftAlone(code, code.Five), SiteScope.Sites(block[0]), null, out ApplyResult result));
        Assert.Equal((ApplyStatus.Refused, DiagnosticCodes.SiteNeedsSlot), (result.Status, result.Diagnostics[0].Code));
        Assert.Equal(own, block[0].ToArray());

        patcher.Switch(code.Inlined, SiteScope.Sites(block[0]));
        Assert.Equal(1, LiveCode.Call(block));
        Assert.Equal(1, patcher.Revert().Written);
        Assert.Equal(own, block[0].ToArray());
        Assert.Equal((LiveSiteState.Original, LiveForm.Call, PatchAction.Call, 2L),
            (block[0].State, block[0].Form, block[0].Action, LiveCode.Call(block)));

        patcher.Link([new SiteLink(block[0], code.Five, RegisterSet.Rax)]);
        Assert.Equal(5, LiveCode.Call(block));
        patcher.Unlink([block[0]]);
        Assert.Equal(own, block[0].ToArray());
        Assert.Equal(2, LiveCode.Call(block));

        LivePlan plan = patcher.Plan(c => c.Revert());
        Assert.Equal((0, (VirtualAddress?)code.Two), (plan.Writes, plan.Plan[0].Outcome.Target));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void The_set_up_of_arguments_is_part_of_the_site_and_comes_back_with_the_call(bool isLong)
    {
        using var code = new LiveCode();
        VirtualAddress echo = Function(code, static a => a.mov(rax, rdi));
        byte[] setUp = isLong ? s_longSetUp : s_setUp;
        CodeBlock block = Commit(code, echo, setUp, allowed: RegisterSet.Rax | RegisterSet.Rdi);
        LiveSite site = block[0];
        byte[] own = site.ToArray();
        Assert.Equal(setUp.Length + 5, own.Length);
        Assert.Equal((0x12345678L, SiteClass.QuiescentOnly), (LiveCode.Call(block), site.Class));
        using LivePatcher patcher = code.Patcher();
        ApplyResult result = patcher.TrySwitch(code.Inlined);
        Assert.Equal((ApplyStatus.Refused, DiagnosticCodes.NeedsQuiescence), (result.Status, result.Diagnostics[0].Code));
        Assert.Equal(own, site.ToArray());

        patcher.Switch(code.Inlined, LiveCode.Quiescent);
        Assert.Equal((1L, LiveForm.OneInstruction), (LiveCode.Call(block), site.Form));
        patcher.Switch(code.Outlined, LiveCode.Quiescent with { InPlace = true });
        Assert.Equal((3L, LiveForm.InPlace), (LiveCode.Call(block), site.Form));
        patcher.Switch(LeftAlone(code, echo), LiveCode.Quiescent);
        Assert.Equal((0x12345678L, LiveForm.Original), (LiveCode.Call(block), site.Form));
        Assert.Equal(setUp, site.ToArray()[..setUp.Length]);
        Assert.Equal(0, patcher.Revert(LiveCode.Quiescent).Written);

        // A live switch leaves it as it is: the slot does the same.
        Assert.Equal(1, patcher.Switch(code.Nops).KeptIndirect);
        Assert.Equal(0, LiveCode.Call(block));
    }

    [Fact]
    public void A_site_longer_than_an_instruction_keeps_its_call_too()
    {
        using var code = new LiveCode();
        byte[] nops = [0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
        CodeBlock block = Commit(code, code.Two, nops);
        byte[] own = block[0].ToArray();
        Assert.Equal((21, 2L), (own.Length, LiveCode.Call(block)));
        using LivePatcher patcher = code.Patcher();
        Assert.Equal(0, patcher.Revert(LiveCode.Quiescent).Written);
        patcher.Switch(code.Inlined, LiveCode.Quiescent);
        Assert.Equal(1, LiveCode.Call(block));
        patcher.Switch(LeftAlone(code, code.Five), LiveCode.Quiescent);
        Assert.Equal((5L, LiveForm.Original), (LiveCode.Call(block), block[0].Form));
        CodeBlock later = Commit(code, code.Two, nops);
        Assert.Equal(5, LiveCode.Call(later));
    }

    [Fact]
    public void A_jump_leads_on_as_a_call_does()
    {
        OpsLayout layout = OpsLayout.Create(b => b.Table("link", t => t.Slot("next", SlotKind.Jump)));
        using var code = new LiveCode();
        CodeBlock block = Commit(code, code.Two, [], layout: layout, opcode: 0xe9);
        Assert.Equal((LiveForm.Jump, (VirtualAddress?)code.Two, 2L), (block[0].Form, block[0].Target, LiveCode.Call(block)));
        using var patcher = new LivePatcher(code.Arena, layout);
        Backend five = Backend.Create("five", layout, b => b.Jump("link.next", code.Five));
        patcher.Switch(five);
        Assert.Equal((LiveForm.Jump, 5L), (block[0].Form, LiveCode.Call(block)));
        patcher.Revert();
        Assert.Equal((LiveForm.Original, 5L), (block[0].Form, LiveCode.Call(block)));
    }

    [Fact]
    public void What_leads_elsewhere_or_is_not_listed_is_refused()
    {
        using var code = new LiveCode();
        PatchException e = Assert.Throws<PatchException>(() => Commit(code, code.Two, [], listed: code.Five));
        Assert.Equal((DiagnosticCodes.WrongSlotOperand, code.Two.ToString(), code.Five.ToString()),
            (e.Diagnostic.Code, e.Diagnostic.Found, e.Diagnostic.Expected));
        Assert.Equal(DiagnosticCodes.LiveSiteForm,
            Assert.Throws<PatchException>(() => Commit(code, code.Two, [], listed: VirtualAddress.Zero)).Diagnostic.Code);
        Assert.Equal(DiagnosticCodes.LiveSiteForm,
            Assert.Throws<PatchException>(() => Commit(code, code.Two, [], opcode: 0xe9)).Diagnostic.Code);
        Assert.Equal(DiagnosticCodes.LiveSiteForm, Assert.Throws<PatchException>(() => Commit(code, code.Two, [0x66])).Diagnostic.Code);
        Assert.Equal(DiagnosticCodes.LiveSiteForm,
            Assert.Throws<PatchException>(() => Commit(code, code.Two, [0xe8, 0, 0, 0, 0])).Diagnostic.Code); // two calls
    }

    [Fact]
    public void A_failing_batch_leaves_the_own_call()
    {
        using var code = new LiveCode();
        CodeBlock block = Commit(code, code.Two, []);
        byte[] own = block[0].ToArray();
        using LivePatcher patcher = code.Patcher();
        foreach (PatchStep step in (PatchStep[])[PatchStep.Planned, PatchStep.Slot, PatchStep.Store, PatchStep.Barrier, PatchStep.Publish])
        {
            patcher.Probe = (at, _) => _ = at == step ? throw new InvalidOperationException("injected") : 0;
            Assert.Equal(ApplyStatus.RolledBack, patcher.TrySwitch(code.Inlined).Status);
            Assert.Equal(own, block[0].ToArray());
            Assert.Equal((LiveForm.Call, 2L), (block[0].Form, LiveCode.Call(block)));
        }

        patcher.Probe = null;
        Assert.Equal(0, patcher.Revert().Written);
        Assert.Equal(own, block[0].ToArray());
    }

    [Theory]
    [InlineData("bf 78 56 34 12 e8 f6 0f 00 00", SlotKind.Call, "b8 01 00 00 00 0f 1f 44 00 00")] // mov $0x12345678,%edi; call 0x2000
    [InlineData("48 c7 c7 78 56 34 12 e8 f4 0f 00 00", SlotKind.Call, "b8 01 00 00 00 0f 1f 80 00 00 00 00")]
    [InlineData("e9 fb 0f 00 00", SlotKind.Jump, "eb fe 0f 1f 00")] // jmp 0x2000
    public void Offline_such_a_site_is_planned_as_an_indirect_one(string original, SlotKind kind, string expected)
    {
        OpsLayout layout = OpsLayout.Create(b => b.Table("t", t => t.Slot("op", kind)));
        byte[] bytes = Convert.FromHexString(original.Replace(" ", "", StringComparison.Ordinal));
        var image = new CodeImage(64, [new CodeSegment("text", 0x1000, bytes)]);
        Backend backend = Backend.Create("native", layout, b => b.Inline("t.op", a =>
        {
            if (kind == SlotKind.Jump)
            {
                Label here = a.CreateLabel();
                a.Label(ref here);
                a.jmp(here);
            }
            else
            {
                a.mov(eax, 1);
            }
        }));
        SiteTable sites = SiteTable.Create(new PatchSite(0x1000, 0, bytes.Length, RegisterSet.All));
        PatchPlan plan = new PatchPlanner().Plan(image, sites, backend, new PlanOptions { SlotFunctions = [0x2000] });
        Assert.True(plan.Apply(image).Succeeded);
        Assert.Equal(expected, Convert.ToHexString(bytes).Chunk(2).Aggregate("", static (s, c) => $"{s} {new string(c)}").Trim(),
            ignoreCase: true);
    }

    private static Backend LeftAlone(LiveCode code, VirtualAddress target) =>
        code.Direct.Derive("left alone", b => b.Set("t.first", Operation.Call(target, destroys: RegisterSet.Rax).LeftAloneByBackend()));

    private static VirtualAddress Function(LiveCode code, Action<Assembler> write)
    {
        var a = new Assembler(64);
        write(a);
        a.ret();
        return code.Arena.Emit(a).Address;
    }

    /// <summary>long f(): rax = 0, at a multiple of 8 a site that calls a function, rax back. A jump's target returns itself.</summary>
    private static CodeBlock Commit(
        LiveCode code, VirtualAddress function, byte[] before, RegisterSet? allowed = null, VirtualAddress? listed = null,
        OpsLayout? layout = null, byte opcode = 0xe8)
    {
        bool jump = layout is not null;
        using CodeReservation room = code.Arena.Allocate(64);
        Span<byte> bytes = room.Span;
        bytes.Fill(0x90);
        ((ReadOnlySpan<byte>)(jump ? [0x31, 0xc0] : [0x48, 0x83, 0xec, 0x08, 0x31, 0xc0])).CopyTo(bytes); // sub rsp,8; xor eax,eax
        before.CopyTo(bytes[8..]);
        int at = 8 + before.Length;
        bytes[at] = opcode;
        BitConverter.TryWriteBytes(bytes[(at + 1)..], checked((int)(function - (room.Address + at + 5))));
        ((ReadOnlySpan<byte>)[0x48, 0x83, 0xc4, 0x08, 0xc3]).CopyTo(bytes[(at + 5)..]); // add rsp,8; ret
        SiteTable sites = SiteTable.Create(new PatchSite(room.Address + 8, 0, before.Length + 5, allowed ?? RegisterSet.Rax));
        return room.Commit(at + 10, layout ?? code.Layout, sites, [listed ?? function]);
    }
}
