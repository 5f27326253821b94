using Iced.Intel;
using PvPatch.Live;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Behaviour;

/// <summary>
/// Bodies that use the stack, as the function a slot holds: there it is one return address deeper. A body that does not mind gives its
/// result with the stack as it was; one that does is refused, at every site that would go through the slot.
/// </summary>
public sealed class StackDepthTests
{
    private sealed record Case(string Name, Action<Assembler> Write, bool Suits);

    private static readonly Case[] s_cases =
    [
        new("pushes and pops", static a => { a.push(rdx); a.mov(eax, 11); a.pop(rdx); }, true),
        new("pushes twice and pops twice", static a => { a.push(rdx); a.push(rcx); a.mov(eax, 11); a.pop(rcx); a.pop(rdx); }, true),
        new("pushes the flags", static a => { a.pushfq(); a.pop(rax); a.mov(eax, 11); }, true),
        new("pushes a number", static a => { a.push(11); a.pop(rax); }, true),
        new("pops below its start", static a => { a.pop(rax); a.push(rax); a.mov(eax, 11); }, false),
        new("pops below its start behind a push", static a => { a.push(rdx); a.pop(rdx); a.pop(rax); a.push(rax); a.mov(eax, 11); }, false),
        new("pops the flags below its start", static a => { a.popfq(); a.pushfq(); a.mov(eax, 11); }, false),
        new("adds to the stack pointer below its start", static a => { a.add(rsp, 8); a.sub(rsp, 8); a.mov(eax, 11); }, false),
        new("reads what lies above it", static a => { a.mov(rax, __qword_ptr[rsp + 16]); a.mov(eax, 11); }, false),
        new("reads by the stack pointer and an index", static a => { a.lea(rax, __[rsp + rdi]); a.mov(eax, 11); }, false),
        new("writes what lies above it", static a => { a.mov(__dword_ptr[rsp + 8], 0); a.mov(eax, 11); }, false),
    ];

    public static TheoryData<int> Cases { get; } = [.. Enumerable.Range(0, s_cases.Length)];

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_body_is_a_slots_function_where_the_stack_does_not_matter_and_refused_elsewhere(int number)
    {
        Case one = s_cases[number];
        using var host = new LiveHost();
        Backend backend = Backend.Create(one.Name, host.Layout, b => b.Inline("t.a", one.Write).Nop("t.b"));
        CodeBlock indirect = Probe.Emit(host, Shape.Fixed());
        Applied(host.Switch(host.Backends.Inlined));
        Done done = host.Switch(backend);
        Assert.True(done.Applied == one.Suits, $"{one.Name}: {done}");
        Probe.Expect(indirect, one.Suits ? 11 : 1);
        if (!one.Suits)
        {
            Assert.Equal(DiagnosticCodes.SlotFunction, done.Code);
        }
        else
        {
            Probe.Expect(Probe.Emit(host, Shape.Atomic(), Shape.Guarded(), Shape.Fixed()), 11, 11, 11);
            Applied(host.Revert());
            Probe.Expect(indirect, 11);
        }
    }

    /// <summary>Point 4: a body that leaves the code takes its exit with the return address still on the stack.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    public void A_body_that_jumps_out_is_right_wherever_it_runs_or_refused(int way) => Isolated.Run(typeof(StackDepthTests), () =>
    {
        // edi counts down; the exit gives 12, the site behind gives 1 more than what it is given.
        using var host = new LiveHost();
        var leave = new Assembler(64);
        leave.mov(eax, 12);
        leave.pop(rbx);
        leave.ret();
        VirtualAddress exit = host.Arena.Emit(leave).Address;
        Backend leaving = Backend.Create("leaving", host.Layout, b => b
            .Inline("t.a", a =>
            {
                a.sub(edi, 1);
                a.js(exit.Value);
            }).Nop("t.b"));
        var code = new Assembler(64);
        var sites = new SiteEmitter(host.Layout);
        code.push(rbx);
        code.mov(eax, 2);
        sites.Emit(code, host.Layout[0], 6, null, SitePlacement.None, PvPatch.Plans.SiteTraits.None, forwarding: way == 2,
            start: way == 0 ? 0 : 63);
        code.pop(rbx);
        code.ret();
        sites.EmitForwarding(code);
        CodeBlock block = host.Arena.Emit(code, sites);
        Done done = host.Switch(leaving);
        if (!done.Applied)
        {
            Assert.Equal(DiagnosticCodes.SlotFunction, done.Code);
            return;
        }

        Assert.Equal((2L, 12L), (Call(block, 1), Call(block, 0)));

        // Emitted and not bound yet: refused, or right.
        CodeBlock? later = null;
        var again = new Assembler(64);
        var more = new SiteEmitter(host.Layout);
        again.push(rbx);
        again.mov(eax, 2);
        more.Emit(again, host.Layout[0]);
        again.pop(rbx);
        again.ret();
        if (LiveHost.TryArena(() => later = host.Arena.Emit(again, more)).Applied)
        {
            Assert.Equal((2L, 12L), (Call(later!, 1), Call(later!, 0)));
        }

        if (host.Revert().Applied)
        {
            Assert.Equal((2L, 12L), (Call(block, 1), Call(block, 0)));
        }
    }, row: $"{way}");

    private static unsafe long Call(CodeBlock block, long argument) => ((delegate* unmanaged<long, long>)block.Address.Value)(argument);

    private static void Applied(Done done) => Assert.True(done.Applied, done.Text);
}
