using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>Links whose targets have a convention of their own, and are told who called them.</summary>
public sealed unsafe class LinkCallTests : IDisposable
{
    // Arguments in r11 and rax, the result in r10; nothing else changes but r11.
    private static readonly CallConvention s_kept = CallConvention.Create(
        "kept", [RegisterSet.R11, RegisterSet.Rax], RegisterSet.R10, RegisterSet.R11);

    private static (ulong First, ulong Second, ulong Caller) s_seen;
    private static LivePatcher? s_asked;

    private readonly CodeArena _arena = CodeArena.Reserve(size: 1 << 20);

    public void Dispose() => _arena.Dispose();

    [Theory]
    [InlineData("r11,rax,r10", 6)] // the host's registers; nothing else may change
    [InlineData("r11,r10", 6)]
    [InlineData("r11,rax,r10,rcx,rdx,rsi,rdi,r8,r9,flags,vector", 9)]
    [InlineData("r11,r10", 18)] // more than an instruction
    public void A_linked_method_gets_its_arguments_and_its_caller(string allowed, int budget)
    {
        OpsLayout layout = Layout(s_kept);
        using var patcher = new LivePatcher(_arena, layout);
        patcher.Switch(Backend.Create("two", layout, b => b.Call("t.mix", Give(2), "two", RegisterSet.R10)));
        CodeBlock block = Emit(layout, RegisterSet.Parse(allowed), budget);
        patcher.Bind(block);
        Assert.Equal(2, Run(block));
        SiteLink link = new SiteLink(block[0], Method).CalledBy(CallConvention.SysV).PassingCaller(2);
        patcher.Link([link], LiveCode.Quiescent);
        Assert.Equal(3 * 7 + 5, Run(block));
        Assert.Equal((7UL, 5UL), (s_seen.First, s_seen.Second));
        Assert.True(_arena.TryFindCaller(s_seen.Caller, out LiveSite site));
        Assert.Equal((block[0], LiveSiteState.Linked, Method), (site, site.State, site.Target!.Value));

        // The same target, not told: another thunk. It reads what the site happens to have in that register.
        patcher.Link([new SiteLink(block[0], Method).CalledBy(CallConvention.SysV)], LiveCode.Quiescent);
        s_seen = default;
        Assert.Equal(3 * 7 + 5, Run(block));
        Assert.Equal((7UL, 5UL, 0UL), s_seen);
        patcher.Unlink(SiteScope.Sites(block[0]), LiveCode.Quiescent);
        Assert.Equal(2, Run(block));
    }

    [Fact]
    public void A_stub_behind_a_thunk_asks_for_a_link_with_its_caller()
    {
        OpsLayout layout = Layout(s_kept);
        using var patcher = new LivePatcher(_arena, layout);
        var operation = Operation.Call((ulong)(nuint)(delegate* unmanaged<ulong, ulong, ulong, ulong>)&Ask, "Ask");
        patcher.Switch(Backend.Create("ask", layout, b => b.Set("t.mix", operation.CalledBy(CallConvention.SysV).PassingCaller(2))));
        CodeBlock block = Emit(layout, s_kept.DestroyedBy(64) | RegisterSet.R10);
        patcher.Bind(block);
        s_asked = patcher;
        Assert.Equal(0, Run(block));
        Assert.Equal(1, patcher.RequestCount);
        Assert.Equal(1, patcher.ApplyRequests().Written);
        Assert.Equal(3 * 7 + 5, Run(block)); // Method now, and by the same convention
        Assert.Equal(block[0].End.Value, s_seen.Caller);
        Assert.Equal(LiveSiteState.Linked, block[0].State);
    }

    [Fact]
    public void A_target_behind_such_a_thunk_is_held_and_let_go()
    {
        OpsLayout layout = Layout(s_kept);
        using var patcher = new LivePatcher(_arena, layout);
        patcher.Switch(Backend.Create("two", layout, b => b.Call("t.mix", Give(2), "two", RegisterSet.R10)));
        CodeBlock block = Emit(layout, s_kept.DestroyedBy(64) | RegisterSet.R10);
        var a = new Assembler(64);
        a.mov(rax, rdx); // the caller, as the third argument
        a.ret();
        CodeBlock target = _arena.Emit(a);
        patcher.Link([new SiteLink(block[0], target.Address).CalledBy(CallConvention.SysV).PassingCaller(2)]);
        Assert.Equal((long)block[0].End.Value, Run(block));
        Assert.Equal([block[0]], target.IncomingLinks);
        Assert.Equal("PV8032", Assert.Throws<PatchException>(() => _arena.Retire(target)).Diagnostic.Code);
        patcher.Unlink(SiteScope.LinkedInto(target));
        _arena.Retire(target);
        Assert.Equal(2, Run(block));
    }

    [Fact]
    public void What_no_thunk_can_do_is_refused()
    {
        OpsLayout layout = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("exit", SlotKind.Jump).Slot("mix"), s_kept));
        using var patcher = new LivePatcher(_arena, layout);
        VirtualAddress two = Give(2);
        patcher.Switch(Backend.Create("two", layout, b => b.Set("t.exit", Operation.Jump(two)).Call("t.mix", two, "two", RegisterSet.R10)));
        var a = new Assembler(64);
        var sites = new SiteEmitter(layout);
        sites.Emit(a, layout[0]);
        sites.Emit(a, layout[1], clobbers: s_kept.DestroyedBy(64) | RegisterSet.R10);
        a.ret();
        CodeBlock block = _arena.Emit(a, sites);
        byte[] before = block.ToArray();
        foreach ((SiteLink link, string why) in new[]
        {
            (new SiteLink(block[0], two).PassingCaller(0), "no thunk can stand between"),
            (new SiteLink(block[0], two).CalledBy(CallConvention.SysV), "no thunk can stand between"),
            (new SiteLink(block[1], two).CalledBy(CallConvention.SysV).PassingCaller(6), "no register for argument 6"),
            (new SiteLink(block[1], two, RegisterSet.R10).PassingCaller(2), "no register for argument 2"),
        })
        {
            ApplyResult result = patcher.TryLink([link]);
            Assert.Equal(DiagnosticCodes.ConventionBroken, result.Diagnostics[0].Code);
            Assert.Contains(why, result.Diagnostics[0].Message, StringComparison.Ordinal);
        }

        Assert.Equal(before, block.ToArray());
        SiteLink one = new(block[1], two);
        Assert.Throws<ArgumentOutOfRangeException>(() => one.PassingCaller(-1));
        Assert.Throws<ArgumentOutOfRangeException>(() => one.PassingCaller(255));
        Assert.Equal((254, null), (one.PassingCaller(254).CallerArgument, one.CallerArgument));
        Assert.NotEqual(one, one.PassingCaller(0));
    }

    private static VirtualAddress Method => (ulong)(nuint)(delegate* unmanaged<ulong, ulong, ulong, ulong>)&Mix;

    private static OpsLayout Layout(CallConvention convention) =>
        OpsLayout.Create(b => b.Table("t", static t => t.Slot("mix"), convention));

    [UnmanagedCallersOnly]
    private static ulong Mix(ulong first, ulong second, ulong caller)
    {
        s_seen = (first, second, caller);
        return 3 * first + second;
    }

    [UnmanagedCallersOnly]
    private static ulong Ask(ulong first, ulong second, ulong caller)
    {
        bool found = s_asked!.Arena.TryFindCaller(caller, out LiveSite site);
        LinkRequestStatus status = !found ? LinkRequestStatus.Refused
            : s_asked.RequestLink(new SiteLink(site, Method).CalledBy(CallConvention.SysV).PassingCaller(2));
        return status == LinkRequestStatus.Queued ? 0 : ulong.MaxValue;
    }

    /// <summary>A function by the host's convention that gives a number.</summary>
    private VirtualAddress Give(int number)
    {
        var a = new Assembler(64);
        a.mov(r10d, number);
        a.ret();
        return _arena.Emit(a).Address;
    }

    /// <summary>long f(): the site with 7 and 5 as its arguments and 0 in rdx, where no argument is; what it gives.</summary>
    private CodeBlock Emit(OpsLayout layout, RegisterSet allowed, int budget = 6)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(layout);
        a.push(rbx);
        a.mov(r11d, 7);
        a.mov(eax, 5);
        a.xor(edx, edx);
        sites.Emit(a, layout[0], budget, allowed);
        a.mov(rax, r10);
        a.pop(rbx);
        a.ret();
        return _arena.Emit(a, sites);
    }

    private static long Run(CodeBlock block) => ((delegate* unmanaged<long>)block.Address.Value)();
}
