using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Arguments;

/// <summary>An arena, functions with one site, and operations that give the argument back, or 7, or nothing.</summary>
internal sealed class EchoCode : IDisposable
{
    public EchoCode(long size = 1 << 20, CallConvention? convention = null)
    {
        Layout = OpsLayout.Create(b => b.Table("t", t => t.Slot("op"), convention));
        Arena = CodeArena.Reserve(size: size);
        Echo = EmitEcho(Arena, 0).Address;
        EchoPlus = EmitEcho(Arena, 1).Address;
        Returner = Function(static a => a.mov(rax, __qword_ptr[rsp]));
        VirtualAddress greedy = Function(static a =>
        {
            a.mov(rax, rdi);
            a.xor(ecx, ecx);
        });
        Direct = Backend.Create("direct", Layout, b => b.Call("t.op", Echo, "echo", RegisterSet.Rax));
        Thunked = Backend.Create(
            "thunked", Layout, b => b.Call("t.op", greedy, "greedy", RegisterSet.Rax | RegisterSet.Rcx | RegisterSet.Flags));
        OneInstruction = Backend.Create("one", Layout, b => b.Inline("t.op", static a => a.mov(rax, rdi)));
        Identity = Backend.Create("identity", Layout, b => b.Identity64("t.op"));
        Several = Backend.Create("several", Layout, b => b.Inline("t.op", static a =>
        {
            a.lea(rax, __[rdi + 1]);
            a.lea(rax, __[rax - 1]);
        }));
        Sum = Backend.Create("sum", Layout, b => b.Inline("t.op", static a => a.lea(rax, __[rdi + rsi])));
        Constant = Backend.Create("constant", Layout, b => b.Inline("t.op", static a => a.mov(eax, 7)));
        Constants = Backend.Create("constants", Layout, b => b.Inline("t.op", static a =>
        {
            a.mov(eax, 3);
            a.lea(eax, __[rax + 4]);
        }));
        CallsDirectly = Calling("calls directly", a => a.call(Echo.Value));
        CallsIndirectly = Calling("calls indirectly", a =>
        {
            a.mov(rax, Echo.Value);
            a.call(rax);
        });
        Nops = Backend.Create("nops", Layout, b => b.Nop("t.op"));
        LeftAlone = Backend.Create(
            "left alone", Layout, b => b.Set("t.op", Operation.Call(Echo, destroys: RegisterSet.Rax).LeftAloneByBackend()));
    }

    /// <summary>What its sites let an operation destroy: the result's register and the argument's.</summary>
    public static RegisterSet Allowed { get; } = RegisterSet.Rax | RegisterSet.Rdi;

    /// <summary>Values of each length of mov.</summary>
    public static IReadOnlyList<ulong> Values { get; } =
    [
        0, 1, 0x12345678, 0x80000000, uint.MaxValue, 0x1_00000000, 0xffffffff_80000000, 0xffffffff_7fffffff, ulong.MaxValue,
        0x8877665544332211,
    ];

    public OpsLayout Layout { get; }

    public CodeArena Arena { get; }

    public SlotTable Slots => Arena.SlotsOf(Layout);

    public VirtualAddress Echo { get; }

    /// <summary>Gives one more.</summary>
    public VirtualAddress EchoPlus { get; }

    /// <summary>Gives its return address.</summary>
    public VirtualAddress Returner { get; }

    public Backend Direct { get; }

    public Backend Thunked { get; }

    public Backend OneInstruction { get; }

    public Backend Identity { get; }

    public Backend Several { get; }

    public Backend Sum { get; }

    public Backend Constant { get; }

    public Backend Constants { get; }

    /// <summary>A body of one instruction that names no register, and whose callee reads the argument.</summary>
    public Backend CallsDirectly { get; }

    public Backend CallsIndirectly { get; }

    public Backend Nops { get; }

    public Backend LeftAlone { get; }

    public ulong Expected(Backend backend, ulong value) =>
        backend == Nops ? 0 : backend == Constant || backend == Constants ? 7 : value;

    public LivePatcher Patcher(Backend backend)
    {
        var patcher = new LivePatcher(Arena, Layout);
        patcher.Switch(backend, LiveCode.Quiescent);
        return patcher;
    }

    /// <summary>ulong f(long rdi): rax = 0, one site, rax back.</summary>
    public CodeBlock Emit(SiteArgument argument, RegisterSet? clobbers, int budget = 6, int start = -1, bool forwarding = false)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(Layout);
        a.sub(rsp, 8);
        a.xor(eax, eax);
        sites.Emit(a, Layout[0], budget, clobbers, SitePlacement.None, SiteTraits.None, forwarding, start, argument);
        a.add(rsp, 8);
        a.ret();
        sites.EmitForwarding(a);
        return Arena.Emit(a, sites);
    }

    public CodeBlock EmitEcho(CodeArena arena, int add)
    {
        var a = new Assembler(64);
        a.lea(rax, __[rdi + add]);
        a.ret();
        return arena.Emit(a);
    }

    public void Dispose() => Arena.Dispose();

    private Backend Calling(string name, Action<Assembler> write) => Backend.Create(
        name, Layout, b => b.Set("t.op", Operation.Inline(InlineBody.Create(write, destroyedByCalls: RegisterSet.Rax))));

    public VirtualAddress Function(Action<Assembler> write)
    {
        var a = new Assembler(64);
        write(a);
        a.ret();
        return Arena.Emit(a).Address;
    }
}
