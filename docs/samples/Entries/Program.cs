// Whole implementations switched as one: functions by their entries, vectors in a table, a block compiled once per backend, a loop in C#.
using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch;
using PvPatch.Live;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

var ops = OpsLayout.Create(b => b.Table("vector", t => t.Slot("divide", SlotKind.Jump).Slot("page", SlotKind.Jump)));
using var arena = CodeArena.Reserve(near: Managed.SumPlain, size: 1 << 20);
using var live = new LivePatcher(arena, ops);

// 1. Two functions that belong together. Each begins with an entry: while its call has no target, the function behind it runs.
var read = new StaticCall("disk.read");
var write = new StaticCall("disk.write");
CodeBlock plainRead = Function(1, read);
CodeBlock plainWrite = Function(2, write);
CodeBlock cachedRead = Function(101); // what replaces a function has no entry of its own
CodeBlock cachedWrite = Function(102);

Show("disk", plainRead, plainWrite);
live.Apply(c => c.Target(read, cachedRead.Address).Target(write, cachedWrite.Address)); // one batch, all or nothing
Show("disk, cached", plainRead, plainWrite);
Console.Write(arena.Dump(plainRead));
live.Apply(c => c.Target(read, null).Target(write, null));
Show("disk", plainRead, plainWrite);

// 2. A table of vectors: the words of a layout, which code indexes by the vector's number.
var native = Backend.Create("native", ops, b => b.Jump("vector.divide", Function(10).Address).Jump("vector.page", Function(11).Address));
var nested = Backend.Create("nested", ops, b => b.Jump("vector.divide", Function(20).Address).Jump("vector.page", Function(21).Address));
live.Switch(native);
var asm = new Assembler(64);
asm.mov(rax, arena.SlotsOf(ops).Address.Value);
asm.jmp(__qword_ptr[rax + rdi * 8]); // vector n is the word of slot n
CodeBlock raise = arena.Emit(asm);
Console.WriteLine($"vectors of {live.Current}: {Run(raise, 0)} {Run(raise, 1)}");
live.Switch(nested); // one store a vector, one barrier
Console.WriteLine($"vectors of {live.Current}: {Run(raise, 0)} {Run(raise, 1)}");

// 3. Dual compile: a block is emitted once for each backend, without sites, and the first one's entry leads to the one that counts.
var sum = new StaticCall("block 0x1000");
CodeBlock fast = Translate(a => a.mov(eax, __dword_ptr[rdi]), sum);
CodeBlock traced = Translate(a =>
{
    a.inc(__qword_ptr[rsi]); // counts its loads
    a.mov(eax, __dword_ptr[rdi]);
});
Console.WriteLine($"fast: {Managed.Sum(fast.Address)}");
live.Apply(c => c.Target(sum, traced.Address)); // callers and links go on leading to the first one's entry
Console.WriteLine($"traced: {Managed.Sum(fast.Address)}");

// 4. A loop in C#, compiled once per mode by the runtime. Generated code and C# come to it through one jump of the arena.
var loop = new StaticCall("loop");
asm.Reset();
var sites = new SiteEmitter(ops);
sites.Jump(asm, loop);
CodeBlock way = arena.Emit(asm, sites);
live.Apply(c => c.Target(loop, Managed.SumPlain));
Console.WriteLine($"plain: {Managed.Sum(way.Address)}");
live.Apply(c => c.Target(loop, Managed.SumTraced));
Console.WriteLine($"traced: {Managed.Sum(way.Address)}");

// A function that gives a number; one that can be replaced begins with an entry.
CodeBlock Function(int result, StaticCall? entry = null)
{
    var a = new Assembler(64);
    var emitter = new SiteEmitter(ops);
    if (entry is not null)
    {
        emitter.Entry(a, entry);
    }

    a.mov(eax, result);
    a.ret();
    return arena.Emit(a, emitter);
}

// long f(int* first, long* loads, long count): the sum, with one way to load.
CodeBlock Translate(Action<Assembler> load, StaticCall? entry = null)
{
    var a = new Assembler(64);
    var emitter = new SiteEmitter(ops);
    if (entry is not null)
    {
        emitter.Entry(a, entry);
    }

    Label next = a.CreateLabel();
    a.xor(ecx, ecx);
    a.Label(ref next);
    load(a);
    a.add(rcx, rax);
    a.add(rdi, sizeof(int));
    a.dec(rdx);
    a.jnz(next);
    a.mov(rax, rcx);
    a.ret();
    return arena.Emit(a, emitter);
}

static unsafe int Run(CodeBlock block, long argument = 0) => ((delegate* unmanaged<long, int>)block.Address.Value)(argument);

static void Show(string what, CodeBlock read, CodeBlock write) => Console.WriteLine($"{what}: {Run(read)} {Run(write)}");

internal interface IMode
{
    public static abstract bool Traces { get; }
}

internal readonly struct Plain : IMode
{
    public static bool Traces => false;
}

internal readonly struct Traced : IMode
{
    public static bool Traces => true;
}

internal static unsafe class Managed
{
    public static VirtualAddress SumPlain => ManagedTarget.Of((delegate* unmanaged<uint*, long*, long, long>)&RunPlain);

    public static VirtualAddress SumTraced => ManagedTarget.Of((delegate* unmanaged<uint*, long*, long, long>)&RunTraced);

    public static string Sum(VirtualAddress code)
    {
        uint[] numbers = [.. Enumerable.Range(0, 1000).Select(static i => (uint)i)];
        long loads = 0;
        fixed (uint* first = numbers)
        {
            long sum = ((delegate* unmanaged<uint*, long*, long, long>)code.Value)(first, &loads, numbers.Length);
            return $"{sum}, {loads} loads traced";
        }
    }

    [UnmanagedCallersOnly]
    private static long RunPlain(uint* first, long* loads, long count) => Loop<Plain>(first, loads, count);

    [UnmanagedCallersOnly]
    private static long RunTraced(uint* first, long* loads, long count) => Loop<Traced>(first, loads, count);

    // A struct as type argument has code of its own: the test is gone from it, and so is what it guards.
    private static long Loop<TMode>(uint* first, long* loads, long count)
        where TMode : struct, IMode
    {
        long sum = 0;
        for (long i = 0; i < count; i++)
        {
            if (TMode.Traces)
            {
                ++*loads;
            }

            sum += first[i];
        }

        return sum;
    }
}
