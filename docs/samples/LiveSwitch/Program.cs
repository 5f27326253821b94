using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

// 1. The operations generated code asks for, and two answers to each.
var ops = OpsLayout.Create(b => b.Table("mem", t => t.Slot("load32").Slot("trace")));
VirtualAddress trace = Helpers.TraceAddress;
var fast = Backend.Create("fast", ops, b => b.Inline("mem.load32", a => a.mov(eax, __dword_ptr[rdi])).Nop("mem.trace"));
var traced = fast.Derive("traced", b => b.Call("mem.trace", trace, "Trace"));

// 2. Memory for code, near what it calls; one patcher for the whole life of the host.
using var arena = CodeArena.Reserve(near: trace);
using var live = new LivePatcher(arena, ops);
live.Switch(fast);

// 3. uint Sum(uint* first, long count), with two sites in its loop.
var asm = new Assembler(64);
var sites = new SiteEmitter(ops);
Label loop = asm.CreateLabel();
asm.push(rbx);
asm.push(r12);
asm.push(r13); // three pushes: the stack is aligned for the sites' calls
asm.mov(rbx, rdi);
asm.mov(r12, rsi);
asm.xor(r13d, r13d);
asm.Label(ref loop);
asm.mov(rdi, rbx);
sites.Emit(asm, ops["mem.trace"]); // may destroy what any function may
asm.mov(rdi, rbx);
sites.Emit(asm, ops["mem.load32"], budget: 8, RegisterSet.Rax, SitePlacement.InsideAligned8); // destroys rax only, and one store changes it
asm.add(r13d, eax);
asm.add(rbx, 4);
asm.dec(r12);
asm.jnz(loop);
asm.mov(eax, r13d);
asm.pop(r13);
asm.pop(r12);
asm.pop(rbx);
asm.ret();
CodeBlock block = arena.Emit(asm, sites);
live.Bind(block); // nobody runs it yet; without this it calls through the slots

// 4. One thread runs it, another switches.
bool stop = false;
var runner = new Thread(() =>
{
    using Executor executor = arena.RegisterExecutor("runner");
    uint[] numbers = [.. Enumerable.Range(0, 1000).Select(i => (uint)i)];
    while (!Volatile.Read(ref stop))
    {
        executor.Enter();
        uint sum = Helpers.Run(block.Address, numbers);
        executor.Leave();
        if (sum != 499500)
        {
            throw new InvalidOperationException($"{sum}");
        }
    }
});
runner.Start();
for (int i = 0; i < 3; i++)
{
    Console.WriteLine(live.Switch(traced)); // while it runs
    Thread.Sleep(10);
    Console.WriteLine(live.Switch(fast));
    Console.WriteLine($"{Helpers.Traced} loads were traced");
}

Volatile.Write(ref stop, true);
runner.Join();
Console.WriteLine(arena.Dump(block));

internal static unsafe class Helpers
{
    private static long s_traced;

    public static long Traced => Volatile.Read(ref s_traced);

    public static VirtualAddress TraceAddress => ManagedTarget.Of((delegate* unmanaged<ulong, void>)&Trace);

    public static uint Run(VirtualAddress code, uint[] numbers)
    {
        fixed (uint* first = numbers)
        {
            return ((delegate* unmanaged<uint*, long, uint>)code.Value)(first, numbers.Length);
        }
    }

    [UnmanagedCallersOnly]
    private static void Trace(ulong address) => Interlocked.Increment(ref s_traced);
}
