using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>
/// An inline body as the function a slot holds: the same at a site that calls through the slot as at one that has the body.
/// </summary>
public sealed unsafe class SlotFunctionTests
{
    private const long Stayed = 1;
    private const long Left = 2;

    // A site that lets everything be destroyed but what the test looks at.
    private static readonly RegisterSet s_allowed = CallConvention.SysV.DestroyedBy(64);

    [Theory]
    [InlineData(5, Stayed)]
    [InlineData(-5, Left)]
    public void A_body_that_jumps_out_leaves_with_the_stack_it_came_with(long argument, long expected)
    {
        using var code = new Leaver();
        Backend backend = code.Backend(a =>
        {
            a.test(rdi, rdi);
            a.js(code.Leave.Value);
        });
        code.Check(backend, argument, expected);
    }

    [Theory]
    [InlineData(5, Stayed)]
    [InlineData(-5, Left)]
    public void Registers_and_flags_are_at_the_exit_what_the_body_made_them(long argument, long expected)
    {
        using var code = new Leaver(checksCarry: true);
        Backend backend = code.Backend(a =>
        {
            Label stay = a.CreateLabel();
            a.test(rdi, rdi);
            a.jns(stay);
            a.stc();
            a.jc(code.Leave.Value);
            a.Label(ref stay);
            a.nop();
        });
        code.Check(backend, argument, expected);
    }

    [Theory]
    [InlineData(5, Stayed)]
    [InlineData(-5, Left)]
    public void A_body_with_pushes_and_several_exits_is_right_too(long argument, long expected)
    {
        using var code = new Leaver();
        Backend backend = code.Backend(a =>
        {
            Label popped = a.CreateLabel();
            a.push(rdi);
            a.pop(rcx);
            a.cmp(rcx, -1000);
            a.jl(code.Leave.Value);
            a.test(rcx, rcx);
            a.jns(popped);
            a.jmp(code.Leave.Value);
            a.Label(ref popped);
            a.nop();
        });
        code.Check(backend, argument, expected);
        code.Check(backend, -5000, Left);
    }

    [Theory]
    [InlineData(5, Stayed)]
    [InlineData(-5, Left)]
    public void A_body_that_calls_has_its_callee_find_an_aligned_stack_and_jumps_out_from_there(long argument, long expected)
    {
        using var code = new Leaver();

        // movaps to the stack faults where that is not aligned as the convention says.
        var a = new Assembler(64);
        a.movaps(__xmmword_ptr[rsp - 24], xmm0);
        a.mov(rax, rdi);
        a.ret();
        VirtualAddress aligned = code.Arena.Emit(a).Address;
        Backend backend = code.Backend(b =>
        {
            b.call(aligned.Value);
            b.test(rax, rax);
            b.js(code.Leave.Value);
        });
        code.Check(backend, argument, expected);
    }

    [Fact]
    public void Windows_callees_do_not_write_over_the_return_address()
    {
        using var code = new Leaver();
        var a = new Assembler(64);
        for (int i = 1; i <= 4; i++)
        {
            a.mov(__qword_ptr[rsp + 8 * i], 0); // the four words that belong to a callee of that convention
        }

        a.ret();
        VirtualAddress homes = code.Arena.Emit(a).Address;
        code.Check(code.Backend(b => b.call(homes.Value)), 5, Stayed);
    }

    [Fact]
    public void What_depends_on_the_return_address_not_being_there_is_refused()
    {
        using var code = new Leaver();
        Assert.Contains("pops", code.Refusal(static a => { a.pop(rcx); a.push(rcx); }), StringComparison.Ordinal);
        Assert.Contains("stack pointer's value", code.Refusal(static a => a.mov(rax, __qword_ptr[rsp + 8])), StringComparison.Ordinal);
        Assert.Contains("stack pointer's value", code.Refusal(static a => a.lea(rax, __[rsp + 16])), StringComparison.Ordinal);
        Assert.Contains("stack pointer's value", code.Refusal(static a => a.mov(rax, rsp)), StringComparison.Ordinal);
        Assert.Contains("stack pointer's value", code.Refusal(static a => a.cmp(rsp, rdi)), StringComparison.Ordinal);
        Assert.Contains("stack pointer's value", code.Refusal(static a => { a.push(rsp); a.pop(rax); }), StringComparison.Ordinal);
        Assert.Contains("stack pointer's value", code.Refusal(static a => a.test(rsp, rsp)), StringComparison.Ordinal);
        Assert.Contains(
            "stack pointer's value", code.Refusal(static a => { a.mov(__qword_ptr[rsp - 64], rsp); }), StringComparison.Ordinal);
        Assert.Contains("stack pointer's value", code.Refusal(static a => JumpOver(a, static b => b.mov(rax, __qword_ptr[rsp + 8]))),
            StringComparison.Ordinal);
        Assert.Contains("returns", code.Refusal(static a => a.ret()), StringComparison.Ordinal);
        Assert.Contains("indirect jump", code.Refusal(static a => a.jmp(rax)), StringComparison.Ordinal);
        Assert.Contains("stack pointer moved", code.Refusal(a => { a.push(rdi); a.test(rdi, rdi); a.js(code.Leave.Value); a.pop(rdi); }),
            StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(5, 1)]
    [InlineData(-5, 2)]
    [InlineData(0, 3)]
    public void Each_exit_of_a_body_leads_where_it_says(long argument, long expected)
    {
        OpsLayout layout = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("op"), CallConvention.SysV));
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        VirtualAddress[] ends = [LiveCode.EmitHelper(arena, 2), LiveCode.EmitHelper(arena, 3)];
        var a = new Assembler(64);
        var sites = new SiteEmitter(layout);
        sites.Emit(a, layout[0], clobbers: s_allowed);
        a.mov(eax, 1);
        a.ret();
        CodeBlock function = arena.Emit(a, sites);
        using var patcher = new LivePatcher(arena, layout);
        patcher.Switch(
            Backend.Create("ends", layout, b => b.Inline("t.op", c =>
            {
                c.test(rdi, rdi);
                c.js(ends[0].Value);
                c.je(ends[1].Value);
            })),
            LiveCode.Quiescent);
        Assert.Equal(expected, LiveCode.Call(function, argument));
        patcher.Revert(LiveCode.Quiescent);
        Assert.Equal(expected, LiveCode.Call(function, argument));
    }

    [Fact]
    public void The_depth_of_the_stack_is_followed_along_the_ways_not_along_the_bytes()
    {
        // Behind the jump stands code that is reached with one word pushed.
        using var code = new Leaver();
        Backend backend = code.Backend(static a =>
        {
            Label pop = a.CreateLabel();
            Label end = a.CreateLabel();
            Label middle = a.CreateLabel();
            a.push(rdi);
            a.jmp(middle);
            a.Label(ref pop);
            a.pop(rcx);
            a.jmp(end);
            a.Label(ref middle);
            a.nop();
            a.jmp(pop);
            a.Label(ref end);
            a.nop();
        });
        code.Check(backend, 5, Stayed);
    }

    [Fact]
    public void A_body_that_jumps_out_and_destroys_too_much_is_refused()
    {
        using var code = new Leaver(RegisterSet.Rax | RegisterSet.Flags);
        string refusal = code.Refusal(a =>
        {
            a.mov(rcx, rdi);
            a.test(rcx, rcx);
            a.js(code.Leave.Value);
        });
        Assert.Contains("jumps out and destroys", refusal, StringComparison.Ordinal);
    }

    [Fact]
    public void Code_that_jumps_to_a_slot_finds_the_body_as_it_is()
    {
        OpsLayout layout = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("out", SlotKind.Jump), CallConvention.SysV));
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        var a = new Assembler(64);
        var sites = new SiteEmitter(layout);
        sites.Emit(a, layout[0]);
        CodeBlock block = arena.Emit(a, sites);
        using var patcher = new LivePatcher(arena, layout);
        patcher.Switch(Backend.Create("ret", layout, static b => b.Inline("t.out", static c =>
        {
            c.mov(rax, __qword_ptr[rsp]); // the caller's return address: nothing lies above it
            c.mov(eax, 9);
            c.ret();
        })));
        patcher.Revert();
        Assert.Equal(9, LiveCode.Call(block));
    }

    [Fact]
    public void A_value_of_a_data_slot_is_stored()
    {
        OpsLayout layout = OpsLayout.Create(
            static b => b.Table("t", static t => t.Slot("op").Slot("flags", SlotKind.Data), CallConvention.SysV));
        using CodeArena arena = CodeArena.Reserve(size: 1 << 20);
        SlotTable slots = arena.SlotsOf(layout);
        Assert.Equal(VirtualAddress.Zero, slots.FunctionOf(layout[1]));
        using var patcher = new LivePatcher(arena, layout);
        patcher.Switch(Backend.Create("five", layout, static b => b.Nop("t.op").Call("t.flags", 5, "five")));
        Assert.Equal(5UL, slots.FunctionOf(layout[1]).Value);
        patcher.Switch(Backend.Create("none", layout, static b => b.Nop("t.op")));
        Assert.Equal(0UL, slots.FunctionOf(layout[1]).Value);
    }

    [Fact]
    public void Every_slot_without_an_operation_has_a_trap_that_names_it()
    {
        using var code = new LiveCode();
        SlotTable slots = code.Arena.SlotsOf(code.Layout);
        using LivePatcher patcher = code.Patcher();
        foreach (bool switched in (bool[])[false, true])
        {
            if (switched)
            {
                patcher.Switch(Backend.Create("empty", code.Layout, static _ => { }));
            }

            for (int i = 0; i < code.Layout.Count; i++)
            {
                VirtualAddress trap = slots.FunctionOf(code.Layout[i]);
                Assert.True(code.Arena.TryFindTrap(trap, out OpSlot? slot));
                Assert.Same(code.Layout[i], slot);
                Assert.Equal([0x0f, 0x0b, (byte)i, 0], new ReadOnlySpan<byte>((void*)trap.Value, 4).ToArray());
                Assert.False(code.Arena.TryFindTrap(trap + 1, out _));
            }
        }

        CodeBlock block = code.EmitFunction(new SiteWish(1));
        Assert.False(code.Arena.TryFindTrap(block[0].Address, out _));
        patcher.Bind(block);
        Assert.True(code.Arena.TryFindTrap(block[0].Address + 4, out OpSlot? inPlace));
        Assert.Same(code.Layout[1], inPlace);
        Assert.False(code.Arena.TryFindTrap(0x1234, out _));
        Assert.Contains("trap of t.third", code.Arena.Dump(slots.FunctionOf(code.Layout[2]), 2), StringComparison.Ordinal);
    }

    private static void JumpOver(Assembler a, Action<Assembler> write)
    {
        Label over = a.CreateLabel();
        a.jmp(over);
        a.nop();
        a.Label(ref over);
        write(a);
    }

    /// <summary>
    /// long f(long argument): callee-saved registers and 16 bytes on the stack around a site; 1 where control comes out behind the site, 2
    /// where it comes to the place the body jumps to. A moved stack pointer ends it with a fault or another result.
    /// </summary>
    private sealed class Leaver : IDisposable
    {
        private readonly OpsLayout _layout = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("op"), CallConvention.SysV));
        private readonly CodeBlock _function;

        public Leaver(RegisterSet? allowed = null, bool checksCarry = false)
        {
            Arena = CodeArena.Reserve(size: 1 << 20);
            var a = new Assembler(64);
            var sites = new SiteEmitter(_layout);
            Label leave = a.CreateLabel();
            Label end = a.CreateLabel();
            Label wrong = a.CreateLabel();
            a.push(rbx);
            a.push(rbp);
            a.mov(rbp, rsp);
            a.sub(rsp, 40); // 32 bytes for callees of Windows' convention, and alignment
            sites.Emit(a, _layout[0], clobbers: allowed ?? s_allowed, forwarding: true);
            a.mov(eax, (int)Stayed);
            a.jmp(end);
            a.Label(ref leave);
            if (checksCarry)
            {
                a.jnc(wrong);
            }

            a.mov(eax, (int)Left);
            a.Label(ref end);
            a.lea(rcx, __[rsp + 40]);
            a.cmp(rcx, rbp);
            a.jne(wrong);
            a.mov(rsp, rbp);
            a.pop(rbp);
            a.pop(rbx);
            a.ret();
            a.Label(ref wrong);
            a.mov(eax, -1);
            a.mov(rsp, rbp);
            a.pop(rbp);
            a.pop(rbx);
            a.ret();
            _function = Arena.Emit(a, sites, out CodeLabels labels);
            Leave = labels[leave];
        }

        public CodeArena Arena { get; }

        public VirtualAddress Leave { get; }

        public Backend Backend(Action<Assembler> body) => Mechanisms.Backend.Create("leaver", _layout, b => b.Inline("t.op", body));

        /// <summary>
        /// The body in the site and out of line, then the site emitted after the switch, the reverted one, and the forwarding island.
        /// </summary>
        public void Check(Backend backend, long argument, long expected)
        {
            using var patcher = new LivePatcher(Arena, _layout);
            patcher.Switch(backend, LiveCode.Quiescent);
            Assert.Equal(expected, LiveCode.Call(_function, argument));
            patcher.Revert(LiveCode.Quiescent);
            Assert.Equal(expected, LiveCode.Call(_function, argument));

            // What an executor does that meets the site's guard.
            LiveSite site = _function[0];
            VirtualAddress island = site.Address + 2 + site.Record.Forward;
            byte[] original = site.ToArray();
            byte[] guarded = [0xeb, (byte)site.Record.Forward, .. original[2..]];
            guarded.CopyTo(Arena.Memory.Span(site.Address, guarded.Length));
            Assert.True(Arena.RunBarrier());
            Assert.Equal(expected, LiveCode.Call(_function, argument));
            original.CopyTo(Arena.Memory.Span(site.Address, original.Length));
            Assert.True(Arena.RunBarrier());
            Assert.NotEqual(site.Address, island);
        }

        public string Refusal(Action<Assembler> body)
        {
            using var patcher = new LivePatcher(Arena, _layout);
            patcher.Switch(Mechanisms.Backend.Create("nop", _layout, static b => b.Nop("t.op")), LiveCode.Quiescent);
            patcher.Revert(LiveCode.Quiescent);
            ApplyResult result = patcher.TrySwitch(Backend(body));
            Assert.Equal(ApplyStatus.Refused, result.Status);
            Assert.Equal(DiagnosticCodes.SlotFunction, result.Diagnostics[0].Code);
            return result.Diagnostics[0].Message;
        }

        public void Dispose() => Arena.Dispose();
    }
}
