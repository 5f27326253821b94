// Block chaining: blocks are made when they are first come to, and each exit is then linked to the block it leads to.
using Iced.Intel;
using PvPatch.Live;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

// The only operation: go on with the next block. It is a jump, and until an exit is linked it leads out to the host, which finds the block.
var ops = OpsLayout.Create(b => b.Table("link", t => t.Slot("next", SlotKind.Jump)));
using var arena = CodeArena.Reserve(size: 1 << 20);
using var live = new LivePatcher(arena, ops);
using Executor executor = arena.RegisterExecutor();

// The way in, and the way out with the number of the exit in eax. Code without sites needs no more than an assembler.
var asm = new Assembler(64);
Label leave = asm.CreateLabel();
asm.push(rbx);
asm.mov(rbx, rdi); // the state
asm.jmp(rsi); // the block
asm.Label(ref leave);
asm.pop(rbx);
asm.ret();
CodeBlock enter = arena.Emit(asm, out CodeLabels labels);
live.Switch(Backend.Create("chained", ops, b => b.Jump("link.next", labels[leave], "leave")));

// Collatz: 0 asks whether the number is even, 1 halves it, 2 triples it and adds one. [rbx] is the number, [rbx + 8] counts.
var blocks = new CodeBlock?[3];
var exits = new List<(LiveSite Site, int To)>();
Console.WriteLine(Collatz(27)); // makes the blocks, and links them
Console.WriteLine(Collatz(97)); // one way in and one out

// A block is made anew, as where the guest has changed its code. First nothing leads into it any more; then its room is given up, and
// reused when nobody can be inside.
Console.WriteLine(live.Unlink(SiteScope.LinkedInto(blocks[2]!)));
arena.Retire(blocks[2]!);
blocks[2] = null;
Console.WriteLine(Collatz(27));
Console.WriteLine(Collatz(97));

string Collatz(long number)
{
    long[] state = [number, 0];
    int entered = 0;
    int exit = -1;
    for (int next = 0; next >= 0; next = exit < 0 ? -1 : exits[exit].To)
    {
        CodeBlock block = blocks[next] ??= Translate(next);
        if (exit >= 0)
        {
            live.Link([new SiteLink(exits[exit].Site, block.Address)]); // safe while other threads are inside; this one is not
        }

        executor.Enter();
        exit = Host.Run(enter.Address, state, block.Address);
        executor.Leave();
        entered++;
    }

    return $"{number} comes to 1 in {state[1]} steps; ways in: {entered}";
}

CodeBlock Translate(int number)
{
    var a = new Assembler(64);
    var sites = new SiteEmitter(ops);
    var made = new List<(SiteTicket Site, int To)>();
    Label other = a.CreateLabel();
    a.mov(rax, __[rbx]);
    if (number == 0)
    {
        a.test(al, 1);
        a.jnz(other);
        Exit(1);
        a.Label(ref other);
        Exit(2);
    }
    else
    {
        a.inc(__qword_ptr[rbx + 8]);
        if (number == 1)
        {
            a.shr(rax, 1);
        }
        else
        {
            a.lea(rax, __[rax + rax * 2 + 1]);
        }

        a.mov(__[rbx], rax);
        a.cmp(rax, 1);
        a.jne(other);
        a.mov(eax, -1); // done
        a.jmp(labels[leave].Value);
        a.Label(ref other);
        Exit(0);
    }

    CodeBlock block = arena.Emit(a, sites);
    exits.AddRange(made.Select(m => (block[m.Site], m.To)));
    live.Bind(block);
    return block;

    void Exit(int to)
    {
        a.mov(eax, exits.Count + made.Count);
        made.Add((sites.Emit(a, ops["link.next"], placement: SitePlacement.InsideAligned8), to));
    }
}

internal static unsafe class Host
{
    public static int Run(PvPatch.VirtualAddress enter, long[] state, PvPatch.VirtualAddress block)
    {
        fixed (long* pointer = state)
        {
            return ((delegate* unmanaged<long*, ulong, int>)enter.Value)(pointer, block.Value);
        }
    }
}
