using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Execution;
using PvPatch.Tests.Shared;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>
/// Operations with a host's own register convention: what does not keep to it is refused, C# methods are called through it, and a target
/// learns who called it.
/// </summary>
public sealed unsafe class HostConventionTests
{
    // Arguments in r11 and rax, the result in r10; nothing else changes but r11.
    private static readonly CallConvention s_kept = CallConvention.Create(
        "kept", [RegisterSet.R11, RegisterSet.Rax], RegisterSet.R10, RegisterSet.R11);

    private static readonly OpsLayout s_layout = Layout(s_kept);

    private static (ulong First, ulong Second, ulong Caller) s_seen;
    private static VirtualAddress s_destroyer;

    [Fact]
    public void A_method_called_by_a_hosts_convention_gets_its_arguments_and_nothing_changes_but_the_result()
    {
        Requirement.That(WholeState.IsSupported, "a processor and system with xsave");
        using var arena = CodeArena.Reserve(size: 1 << 20);
        Random random = TestSeed.NewRandom();
        using var state = new WholeState(arena, random);
        using var patcher = new LivePatcher(arena, s_layout);
        s_destroyer = state.Destroyer;
        patcher.Switch(Use(s_layout, Operation.Call(Method, "Mix").CalledBy(CallConvention.SysV).PassingCaller(2)));
        for (int i = 0; i < 50; i++)
        {
            CodeBlock block = state.Emit(new SiteEmitter(s_layout), s_layout[0], s_kept.DestroyedBy(64), random.Next(64));
            for (int way = 0; way < 2; way++)
            {
                Assert.Equal(["r10", "r11"], state.Run(block));
                Assert.Equal((state.General(11), state.General(0), block[0].End.Value), s_seen);
                Assert.Equal(3 * state.General(11) + state.General(0), state.GeneralAfter(10));
                patcher.Bind(block);
            }
        }
    }

    public static TheoryData<string> Allowed => ["rax,rcx,rdx,rsi,rdi,r8,r9,r10,r11,flags,vector", "rax,rdx,rsi,flags,vector", "-"];

    [Theory]
    [MemberData(nameof(Allowed))]
    public void A_target_is_told_who_called_it_directly_through_the_slot_and_by_a_forwarding_island(string allowed)
    {
        using var arena = CodeArena.Reserve(size: 1 << 20);
        OpsLayout layout = Layout(CallConvention.SysV);
        using var patcher = new LivePatcher(arena, layout);
        var empty = new Assembler(64);
        empty.ret();
        s_destroyer = arena.Emit(empty).Address;
        patcher.Switch(Use(layout, Operation.Call(Method, "Mix").PassingCaller(2)));
        var a = new Assembler(64);
        var sites = new SiteEmitter(layout);
        a.sub(rsp, 8);
        a.mov(edi, 7);
        a.mov(esi, 5);
        sites.Emit(a, layout[0], clobbers: RegisterSet.Parse(allowed), forwarding: true);
        a.add(rsp, 8);
        a.ret();
        sites.EmitForwarding(a);
        CodeBlock block = arena.Emit(a, sites);

        void Check(bool direct)
        {
            Assert.Equal(direct ? LiveForm.Call : LiveForm.Original, block[0].Form);
            LiveCode.Call(block);
            Assert.Equal((7UL, 5UL, block[0].End.Value), s_seen);
            Assert.True(arena.TryFindCaller(s_seen.Caller, out LiveSite site));
            Assert.Equal(block[0], site);
        }

        Check(direct: false);
        patcher.Bind(block);
        Check(direct: true);
        Assert.Equal((PatchAction.ThunkCall, Method), (block[0].Action, block[0].Target!.Value));

        // As an executor that meets the guard: by the island, whose call leaves a return address in the island.
        Assert.True(block[0].HasForwarding);
        VirtualAddress island = block[0].Address + 2 + block[0].Record.Forward;
        var enter = new Assembler(64);
        enter.sub(rsp, 8);
        enter.mov(edi, 7);
        enter.mov(esi, 5);
        enter.mov(rax, island.Value);
        enter.jmp(rax); // ends where the block's code does, which gives the stack back
        CodeBlock way = arena.Emit(enter);
        LiveCode.Call(way);
        Assert.Equal(island + 6, s_seen.Caller);
        Assert.True(arena.TryFindCaller(s_seen.Caller, out LiveSite owner));
        Assert.Equal(block[0], owner);
    }

    [Fact]
    public void A_body_outside_the_contract_is_refused_by_instruction_and_register()
    {
        PatchDiagnostic error = Refusal(Use(s_layout, Operation.Inline(InlineBody.Create(static a =>
        {
            a.mov(r11d, 1);
            a.lea(rbx, __[r11 + 1]);
        }))));
        Assert.Contains("destroys rbx: lea rbx, [r11+1] at +6", error.Message, StringComparison.Ordinal);
        Assert.Equal("r10,r11", error.Expected);
        error = Refusal(Use(s_layout, Operation.Inline(InlineBody.Create(static a => a.add(r10, r11)))));
        Assert.Contains("destroys flags: add r10, r11 at +0", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_target_in_the_arena_is_held_to_the_contract_and_one_that_keeps_to_it_is_not_refused()
    {
        PatchDiagnostic error = Refusal(arena => Use(s_layout, Operation.Call(Emit(arena, static a =>
        {
            a.lea(r10, __[r11 + rax]);
            a.push(rbx);
            a.mov(ebx, 1);
            a.pop(rbx);
            a.xor(ecx, ecx);
            a.ret();
        }))));
        Assert.Contains("destroys rcx,flags: xor ecx, ecx at", error.Message, StringComparison.Ordinal);

        // What is pushed and popped is kept.
        using var arena = CodeArena.Reserve(size: 1 << 20);
        using var patcher = new LivePatcher(arena, s_layout);
        VirtualAddress good = Emit(arena, static a =>
        {
            a.push(rbx);
            a.mov(ebx, 1);
            a.lea(r10, __[r11 + rax]);
            a.pop(rbx);
            a.ret();
        });
        patcher.Switch(Use(s_layout, Operation.Call(good)));
        CodeBlock block = Site(arena, s_layout);
        patcher.Bind(block);
        Assert.Equal((LiveForm.Call, PatchAction.Call, 12), (block[0].Form, block[0].Action, LiveCode.Call(block)));

        // Said to destroy more, it is called through a thunk.
        VirtualAddress loud = Emit(arena, static a =>
        {
            a.lea(r10, __[r11 + rax]);
            a.xor(ecx, ecx);
            a.ret();
        });
        patcher.Switch(Use(s_layout, Operation.Call(loud, destroys: RegisterSet.Parse("r10,rcx,flags"))));
        Assert.Equal((LiveForm.Call, PatchAction.ThunkCall, 12), (block[0].Form, block[0].Action, LiveCode.Call(block)));
    }

    [Fact]
    public void Code_that_is_not_known_must_be_spoken_for()
    {
        PatchDiagnostic error = Refusal(Use(s_layout, Operation.Call(Method, "Mix")));
        Assert.Contains("nothing says that the target keeps to it", error.Message, StringComparison.Ordinal);
        error = Refusal(arena => Use(s_layout, Operation.Call(Emit(arena, static a => a.jmp(__qword_ptr[rax])))));
        Assert.Contains("can't be computed", error.Message, StringComparison.Ordinal);
        error = Refusal(arena => Use(s_layout, Operation.Call(Emit(arena, static a => a.ret(8)))));
        Assert.Contains("stack pointer", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Calls_that_can_not_be_brought_over_are_refused()
    {
        PatchDiagnostic error = Refusal(Use(s_layout, Operation.Call(Method).CalledBy(CallConvention.SysV).PassingCaller(6)));
        Assert.Contains("no register for argument 6", error.Message, StringComparison.Ordinal);
        CallConvention one = CallConvention.Create("one", [RegisterSet.Rdi], RegisterSet.Rax, RegisterSet.None);
        error = Refusal(Use(s_layout, Operation.Call(Method).CalledBy(one)));
        Assert.Contains("fewer arguments", error.Message, StringComparison.Ordinal);
        CallConvention none = CallConvention.Create("none", [RegisterSet.Rdi, RegisterSet.Rsi], RegisterSet.None, RegisterSet.None);
        error = Refusal(Use(s_layout, Operation.Call(Method).CalledBy(none)));
        Assert.Contains("no result", error.Message, StringComparison.Ordinal);
        OpsLayout without = Layout(none);
        error = Refusal(Use(without, Operation.Identity64));
        Assert.Contains("an identity needs", error.Message, StringComparison.Ordinal);
        OpsLayout jumps = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("op", SlotKind.Jump)));
        error = Refusal(Use(jumps, Operation.Jump(Method).PassingCaller(1)));
        Assert.Contains("jumps to the target", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_identity_moves_the_argument_to_the_result()
    {
        using var arena = CodeArena.Reserve(size: 1 << 20);
        using var patcher = new LivePatcher(arena, s_layout);
        CodeBlock block = Site(arena, s_layout);
        patcher.Switch(Use(s_layout, Operation.Identity64));
        Assert.Equal("2e 2e 2e 4d 89 da", HexBytes.Format(block[0].ToArray())); // mov %r11,%r10 by GNU as: 4d 89 da
        Assert.Equal(7, LiveCode.Call(block));
        Assert.Equal(7, LiveCode.Call(Site(arena, s_layout))); // through the slot
        OpsLayout same = Layout(CallConvention.Create("same", [RegisterSet.Rax], RegisterSet.Rax, RegisterSet.None));
        using var other = new LivePatcher(arena, same);
        CodeBlock nop = Site(arena, same);
        other.Switch(Use(same, Operation.Identity64));
        Assert.Equal("66 0f 1f 44 00 00", HexBytes.Format(nop[0].ToArray()));
        LiveCode.Call(nop);
        LiveCode.Call(Site(arena, same));
    }

    [Fact]
    public void Without_a_stack_nothing_is_called_and_nothing_pushes()
    {
        CallConvention convention = CallConvention.Create("bare", [RegisterSet.Rdi], RegisterSet.Rax, RegisterSet.Flags, hasStack: false);
        OpsLayout layout = Layout(convention);
        using var arena = CodeArena.Reserve(size: 1 << 20);
        (OpsLayout, SiteTraits)[] ways = [(layout, SiteTraits.None), (s_layout, SiteTraits.NoStack)];
        foreach ((OpsLayout of, SiteTraits traits) in ways)
        {
            var sites = new SiteEmitter(of);
            PatchDiagnostic error = Assert.Throws<PatchException>(() => sites.Emit(new Assembler(64), of[0], traits: traits)).Diagnostic;
            Assert.Equal(DiagnosticCodes.EmitterMisuse, error.Code);
            Assert.Equal(0, sites.Count);
            CodeReservation room = arena.Allocate(64);
            byte[] call = new byte[6];
            PrefixPadding.WriteIndirect(call, room.Address, arena.SlotsOf(of).AddressOf(0), jump: false);
            call.CopyTo(room.Span);
            var table = SiteTable.Create([new PatchSite(room.Address, 0, 6, RegisterSet.All, traits)]);
            error = Assert.Throws<PatchException>(() => room.Commit(6, of, table)).Diagnostic;
            Assert.Equal(DiagnosticCodes.LiveSiteForm, error.Code);
            room.Dispose();
        }
    }

    [Fact]
    public void Links_are_held_to_the_contract_too()
    {
        using var arena = CodeArena.Reserve(size: 1 << 20);
        using var patcher = new LivePatcher(arena, s_layout);
        CodeBlock block = Site(arena, s_layout);
        VirtualAddress bad = Emit(arena, static a =>
        {
            a.inc(rdx);
            a.ret();
        });
        Assert.False(patcher.TryLink([new SiteLink(block[0], bad)], null, out ApplyResult result));
        Assert.Contains("destroys rdx,flags: inc rdx", result.Diagnostics[0].Message, StringComparison.Ordinal);
        Assert.True(patcher.TryLink([new SiteLink(block[0], bad, RegisterSet.Rdx | RegisterSet.Flags)], null, out _));
        Assert.Equal(PatchAction.ThunkCall, block[0].Action);
    }

    [Fact]
    public void Conventions_that_make_no_sense_can_not_be_made()
    {
        RegisterSet none = RegisterSet.None;
        Assert.Throws<ArgumentException>(() => CallConvention.Create("x", [RegisterSet.Rsp], none, none));
        Assert.Throws<ArgumentException>(() => CallConvention.Create("x", [RegisterSet.Rax | RegisterSet.Rcx], none, none));
        Assert.Throws<ArgumentException>(() => CallConvention.Create("x", [RegisterSet.Vector], none, none));
        Assert.Throws<ArgumentException>(() => CallConvention.Create("x", [none], none, none));
        Assert.Throws<ArgumentException>(() => CallConvention.Create("x", [RegisterSet.Rax, RegisterSet.Rax], none, none));
        Assert.Throws<ArgumentException>(() => CallConvention.Create("x", [], RegisterSet.Flags, none));
        Assert.Throws<ArgumentException>(() => CallConvention.Create("x", [], none, RegisterSet.Rsp));
        Assert.Throws<ArgumentException>(() => CallConvention.Create("", [], none, none));
    }

    private static VirtualAddress Method => ManagedTarget.Of((delegate* unmanaged<ulong, ulong, ulong, ulong>)&Mix);

    [UnmanagedCallersOnly]
    private static ulong Mix(ulong first, ulong second, ulong caller)
    {
        s_seen = (first, second, caller);
        ((delegate* unmanaged<void>)s_destroyer.Value)();
        return 3 * s_seen.First + s_seen.Second;
    }

    private static OpsLayout Layout(CallConvention convention) =>
        OpsLayout.Create(b => b.Table("t", static t => t.Slot("op"), convention));

    private static Backend Use(OpsLayout layout, Operation operation) => Backend.Create("b", layout, b => b.Set("t.op", operation));

    private static VirtualAddress Emit(CodeArena arena, Action<Assembler> write)
    {
        var a = new Assembler(64);
        write(a);
        return arena.Emit(a).Address;
    }

    /// <summary>long f(): r11 = 7, rax = 5, a site, the result r10.</summary>
    private static CodeBlock Site(CodeArena arena, OpsLayout layout)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(layout);
        a.sub(rsp, 8);
        a.mov(r11d, 7);
        a.mov(eax, 5);
        sites.Emit(a, layout[0]);
        a.mov(rax, r10);
        a.add(rsp, 8);
        a.ret();
        return arena.Emit(a, sites);
    }

    private static PatchDiagnostic Refusal(Backend backend) => Refusal(_ => backend);

    /// <summary>What a switch is refused with: before a byte is written, with a site and without.</summary>
    private static PatchDiagnostic Refusal(Func<CodeArena, Backend> make)
    {
        using var arena = CodeArena.Reserve(size: 1 << 20);
        Backend backend = make(arena);
        using var patcher = new LivePatcher(arena, backend.Layout);
        Assert.False(patcher.TrySwitch(backend, null, null, out ApplyResult result));
        Assert.Equal(DiagnosticCodes.ConventionBroken, Assert.Single(result.Diagnostics).Code);
        CodeBlock block = Site(arena, backend.Layout);
        byte[] before = block.ToArray();
        Assert.False(patcher.TrySwitch(backend, null, null, out result));
        Assert.Equal((DiagnosticCodes.ConventionBroken, "t.op"), (result.Diagnostics[0].Code, result.Diagnostics[0].Source));
        Assert.Equal(before, block.ToArray());
        Assert.False(patcher.TrySwitch(backend, SiteScope.Sites(block[0]), null, out result));
        Assert.Equal(DiagnosticCodes.ConventionBroken, result.Diagnostics[0].Code);
        return result.Diagnostics[0];
    }
}
