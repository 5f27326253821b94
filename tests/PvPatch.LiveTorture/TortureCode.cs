using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.LiveTorture;

/// <summary>
/// Generated functions full of sites, and three backends for them. Each site clears rax, sets the carry flag, runs the operation and
/// checks: rax is a number one of the backends gives, the carry is still set, the stack pointer and eight registers are what they were. A
/// function counts what it saw and stops at the first fault.
/// </summary>
internal sealed class TortureCode : IDisposable
{
    public const int SitesInFunction = 32;
    public const int Loops = 64;
    public const int Results = 5;

    private static readonly AssemblerRegister64[] s_kept = [rcx, rdx, rsi, rdi, r8, r9, r10, r11];

    private readonly CodeArena _far = CodeArena.Reserve(0x10_0000_0000, 1 << 20);

    public TortureCode(TortureOptions options, int functions = 8)
    {
        Layout = OpsLayout.Create(b => b.Table("t", t => t.Slot("op", convention: CallConvention.CalleeSave)));
        Arena = CodeArena.Reserve(size: 16 << 20, options: new ArenaOptions { TrustCacheLines = options.Sites == SiteKind.Line });
        VirtualAddress two = EmitHelper(Arena, 2);
        Targets = [(EmitHelper(Arena, 4), RegisterSet.Rax), (EmitHelper(_far, 4), RegisterSet.Rax),
            (EmitHelper(Arena, 4, wild: true), RegisterSet.Rax | RegisterSet.Rcx)];
        Direct = Backend.Create("direct", Layout, b => b.Call("t.op", two, "two", RegisterSet.Rax));
        Inlined = Backend.Create("inlined", Layout, b => b.Inline("t.op", static a => a.mov(eax, 1)));
        Outlined = Backend.Create("outlined", Layout, b => b.Inline("t.op", static a =>
        {
            a.lea(eax, __[rax + 1]);
            a.lea(eax, __[rax + 2]);
        }));

        var random = new Random(options.Seed);
        for (int i = 0; i < functions; i++)
        {
            bool isHosts = options.Sites == SiteKind.Host || (options.Sites == SiteKind.Mixed && i % 4 == 3);
            (CodeBlock block, VirtualAddress entry) = isHosts
                ? new HostFunction(Arena, Layout, two).Emit(random) : EmitFunction(options, random);
            Blocks.Add(block);
            Entries.Add(entry);
        }
    }

    public OpsLayout Layout { get; }

    public CodeArena Arena { get; }

    /// <summary>Calls a function that gives 2.</summary>
    public Backend Direct { get; }

    /// <summary>One instruction: gives 1.</summary>
    public Backend Inlined { get; }

    /// <summary>Two instructions in an island: gives 3, if rax was cleared and they run both and once.</summary>
    public Backend Outlined { get; }

    /// <summary>What sites are linked to: gives 4. One in the arena, one out of its reach, one that destroys what sites keep.</summary>
    public IReadOnlyList<(VirtualAddress Address, RegisterSet Destroys)> Targets { get; }

    public List<CodeBlock> Blocks { get; } = [];

    public List<VirtualAddress> Entries { get; } = [];

    public void Dispose()
    {
        Arena.Dispose();
        _far.Dispose();
    }

    private VirtualAddress EmitHelper(CodeArena arena, int result, bool wild = false)
    {
        var assembler = new Assembler(64);
        if (wild)
        {
            assembler.mov(rcx, -1);
        }

        assembler.mov(eax, result);
        assembler.ret();
        return arena.Emit(assembler, new SiteEmitter(Layout)).Address;
    }

    /// <summary>long function(long* counts, long loops): 0, or the number of the site that failed, from 1.</summary>
    private (CodeBlock Block, VirtualAddress Entry) EmitFunction(TortureOptions options, Random random)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(Layout);
        Label loop = a.CreateLabel();
        Label leave = a.CreateLabel();
        AssemblerRegister64[] saved = [rbx, rbp, r12, r13, r14, r15];
        foreach (AssemblerRegister64 register in saved)
        {
            a.push(register);
        }

        a.sub(rsp, 8); // aligned for the calls at the sites
        a.mov(r15, rdi);
        a.mov(r14, rsi);
        a.mov(rbp, rsp);
        SetKept(a);
        a.Label(ref loop);
        for (int i = 0; i < SitesInFunction; i++)
        {
            EmitSite(a, sites, options, random, i, leave);
        }

        a.dec(r14);
        a.jnz(loop);
        a.xor(ebx, ebx);
        a.Label(ref leave);
        a.mov(rax, rbx);
        a.mov(rsp, rbp);
        a.add(rsp, 8);
        foreach (AssemblerRegister64 register in saved.Reverse())
        {
            a.pop(register);
        }

        a.ret();
        CodeBlock block = Arena.Emit(a, sites);
        return (block, block.Address);
    }

    /// <summary>Gives the registers that no site may change their numbers.</summary>
    public static void SetKept(Assembler a)
    {
        a.mov(r12, 0x5eed_0000_0000_0001);
        for (int i = 0; i < s_kept.Length; i++)
        {
            a.lea(s_kept[i], __[r12 + i]);
        }
    }

    /// <summary>What comes before a site.</summary>
    public static void Prepare(Assembler a, int number)
    {
        a.mov(ebx, number);
        a.xor(eax, eax);
        a.stc();
    }

    /// <summary>What comes behind a site: goes to a label or address where something is not as it should be.</summary>
    public static void Check(Assembler a, Label leave) => Check(a, () => a.jnc(leave), () => a.jne(leave), () => a.jae(leave));

    /// <inheritdoc cref="Check(Assembler, Label)"/>
    public static void Check(Assembler a, ulong leave) => Check(a, () => a.jnc(leave), () => a.jne(leave), () => a.jae(leave));

    private static void Check(Assembler a, Action ifNoCarry, Action ifNotEqual, Action ifAboveOrEqual)
    {
        ifNoCarry(); // flags are not among what a body may destroy
        a.cmp(rsp, rbp);
        ifNotEqual();
        a.lea(rax, __[rax - 1]);
        a.cmp(rax, Results - 1);
        ifAboveOrEqual(); // unsigned: 0 became the largest number
        a.inc(__qword_ptr[r15 + rax * 8]);
        for (int i = 0; i < s_kept.Length; i++)
        {
            a.lea(r13, __[r12 + i]);
            a.cmp(s_kept[i], r13);
            ifNotEqual();
        }
    }

    private void EmitSite(Assembler a, SiteEmitter sites, TortureOptions options, Random random, int number, Label leave)
    {
        (int start, int budget) = Place(options, random);
        Prepare(a, number + 1);
        bool forwarding = options.Sites == SiteKind.Forward || (options.Sites == SiteKind.Mixed && random.Next(2) == 0);
        sites.Emit(a, Layout["t.op"], budget, RegisterSet.Rax, SitePlacement.None, SiteTraits.None, forwarding, start);
        Check(a, leave);
        if (forwarding)
        {
            Label over = a.CreateLabel();
            a.jmp(over);
            sites.EmitForwarding(a);
            a.Label(ref over);
        }
    }

    /// <summary>A start in the line and a length that give the class asked for.</summary>
    private static (int Start, int Budget) Place(TortureOptions options, Random random)
    {
        while (true)
        {
            int start = random.Next(64);
            int budget = options.Protocol == Protocol.Library ? random.Next(6, 16) : 6;
            SiteClass kind = SiteRecord.Classify(
                (ulong)start, budget, single: true, SiteRecord.HasAtomic16, options.Sites == SiteKind.Line);
            bool fits = options.Sites switch
            {
                SiteKind.Atomic8 => kind == SiteClass.Atomic8,
                SiteKind.Atomic16 => kind == SiteClass.Atomic16,
                SiteKind.Line => kind == SiteClass.Line,
                SiteKind.Mixed => kind != SiteClass.QuiescentOnly,

                // For the guard it is the line's end that counts: on today's processors a store inside a line is one event whatever it is
                // called.
                _ => kind == SiteClass.Guarded && start + budget > 64,
            };
            if (fits)
            {
                return (start, budget);
            }
        }
    }
}
