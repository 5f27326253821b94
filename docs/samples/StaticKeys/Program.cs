using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch;
using PvPatch.Live;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

var ops = OpsLayout.Create(b => b.Table("trace", t => t.Slot("exit")));
var quiet = Backend.Create("quiet", ops, b => b.Nop("trace.exit"));
var traced = Backend.Create("traced", ops, b => b.Call("trace.exit", Helpers.TraceAddress, "Trace"));
using var arena = CodeArena.Reserve(near: Helpers.TraceAddress);
using var live = new LivePatcher(arena, ops);
live.Switch(quiet);

var checks = new StaticKey("checks"); // off
var rounding = new MultiBranch("rounding", ways: 3); // no way chosen: its sites fall through
var listener = new StaticCall("listener"); // nobody listens: its sites do nothing

// long Round(long x)
var asm = new Assembler(64);
var sites = new SiteEmitter(ops);
Label down = asm.CreateLabel();
Label up = asm.CreateLabel();
Label nearest = asm.CreateLabel();
Label rounded = asm.CreateLabel();
Label check = asm.CreateLabel();
Label isChecked = asm.CreateLabel();
asm.push(rbx); // one push: the stack is aligned for calls
asm.mov(rbx, rdi);
sites.Branch(asm, checks, check); // a nop while off, a jump while on
asm.Label(ref isChecked);
sites.Branch(asm, rounding, [down, up, nearest]); // a nop or one jump, whatever the number of ways
asm.jmp(rounded);
asm.Label(ref nearest);
asm.add(rbx, 8);
asm.jmp(down);
asm.Label(ref up);
asm.add(rbx, 15);
asm.Label(ref down);
asm.and(rbx, -16);
asm.Label(ref rounded);
asm.mov(rdi, rbx);
sites.Call(asm, listener); // a nop while nobody listens, then a direct call
asm.mov(rdi, rbx);
sites.Emit(asm, ops["trace.exit"]);
asm.mov(rax, rbx);
asm.pop(rbx);
asm.ret();
asm.Label(ref check); // out of the way of what usually runs
asm.test(rbx, rbx);
asm.jns(isChecked);
asm.xor(ebx, ebx);
asm.jmp(isChecked);
CodeBlock block = arena.Emit(asm, sites);
live.Bind(block);
Console.WriteLine(Helpers.Observe(block)); // -5 28, heard 0, traced 0

// Everything at once, while threads may be inside: one plan, one barrier, all or nothing.
Console.WriteLine(live.Apply(c => c.Use(traced).Enable(checks).Set(rounding, 2).Target(listener, Helpers.ListenAddress)));
Console.WriteLine(Helpers.Observe(block)); // 0 32, heard 32, traced 2
Console.WriteLine(arena.Dump(block));

// A key is counted: two who need it do not know of each other.
live.Enable(checks);
live.Disable(checks);
Console.WriteLine($"{checks.IsEnabled} {Helpers.Run(block, -5)}"); // True 0
live.Apply(c => c.Disable(checks).Set(rounding, null).Target(listener, null).Use(quiet));
Console.WriteLine($"{checks.IsEnabled} {Helpers.Run(block, -5)}"); // False -5

// A number in the code, and a piece of code of its own for each backend.
var price = new CodeConstant("price", 7);
var tag = new Assembler(64);
sites.Constant(tag, price, a => a.mov(eax, int.MaxValue)); // mov eax,imm32
sites.Variants(
    tag,
    new SiteVariant(quiet, a => a.inc(eax)),
    new SiteVariant(traced, a => a.imul(eax, eax, 3)));
tag.ret();
CodeBlock tagged = arena.Emit(tag, sites);
Console.WriteLine(Helpers.Run(tagged, 0)); // 8
live.Apply(c => c.Set(price, 10).Use(traced));
Console.WriteLine(Helpers.Run(tagged, 0)); // 30
Console.WriteLine(arena.Dump(tagged));

internal static unsafe class Helpers
{
    private static long s_heard;
    private static long s_traced;

    public static VirtualAddress ListenAddress => ManagedTarget.Of((delegate* unmanaged<long, void>)&Listen);

    public static VirtualAddress TraceAddress => ManagedTarget.Of((delegate* unmanaged<long, void>)&Trace);

    public static long Run(CodeBlock code, long x) => ((delegate* unmanaged<long, long>)code.Address.Value)(x);

    public static string Observe(CodeBlock code) => $"{Run(code, -5)} {Run(code, 28)}, heard {s_heard}, traced {s_traced}";

    [UnmanagedCallersOnly]
    private static void Listen(long x) => s_heard += x;

    [UnmanagedCallersOnly]
    private static void Trace(long x) => s_traced++;
}
