using Iced.Intel;
using PvPatch.Live;
using PvPatch.Live.Platform;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live;

/// <summary>An arena with helpers and functions made of sites, for tests that look at bytes, states and results.</summary>
internal sealed unsafe class LiveCode : IDisposable
{
    public LiveCode(LivePlatform? platform = null, bool? atomic16 = null, bool trustLines = false, long size = 1 << 20)
    {
        Layout = OpsLayout.Create(b => b.Table("t", t => t.Slot("first").Slot("second").Slot("third"), CallConvention.CalleeSave));
        Arena = CodeArena.Reserve(
            size: size,
            options: new ArenaOptions
            {
                Platform = platform,
                Atomic16 = atomic16,
                TrustCacheLines = trustLines,
                SaveVectorState = false, // so that there are functions no thunk can serve
            });
        Two = EmitHelper(2);
        Five = EmitHelper(5);
        Direct = Backend.Create("direct", Layout, b => b
            .Call("t.first", Two, "two", RegisterSet.Rax).Call("t.second", Two, "two", RegisterSet.Rax)
                .Call("t.third", Two, "two", RegisterSet.Rax));
        Inlined = Backend.Create("inlined", Layout, b => b.Inline("t.first", MovOne).Inline("t.second", MovOne).Inline("t.third", MovOne));
        Outlined = Backend.Create(
            "outlined", Layout, b => b.Inline("t.first", AddThree).Inline("t.second", AddThree).Inline("t.third", AddThree));
        Nops = Backend.Create("nops", Layout, b => b.Nop("t.first").Nop("t.second").Nop("t.third"));
    }

    private static readonly OpsLayout s_none = OpsLayout.Create(static _ => { });

    public static SwitchOptions Quiescent { get; } = new() { Mode = SwitchMode.Quiescent };

    public OpsLayout Layout { get; }

    public CodeArena Arena { get; }

    /// <summary>Gives 2.</summary>
    public VirtualAddress Two { get; }

    /// <summary>Gives 5.</summary>
    public VirtualAddress Five { get; }

    /// <summary>Every slot calls <see cref="Two"/>.</summary>
    public Backend Direct { get; }

    /// <summary>Every slot is one instruction: rax = 1.</summary>
    public Backend Inlined { get; }

    /// <summary>Every slot is two instructions: rax += 3.</summary>
    public Backend Outlined { get; }

    public Backend Nops { get; }

    public OpSlot First => Layout[0];

    public static void MovOne(Assembler a) => a.mov(eax, 1);

    public static void AddThree(Assembler a)
    {
        a.lea(eax, __[rax + 1]);
        a.lea(eax, __[rax + 2]);
    }

    /// <summary>A patcher switched to a backend before anything runs.</summary>
    public LivePatcher Patcher(Backend? backend = null)
    {
        var patcher = new LivePatcher(Arena, Layout);
        if (backend is not null)
        {
            patcher.Switch(backend, Quiescent);
        }

        return patcher;
    }

    public VirtualAddress EmitHelper(int result) => EmitHelper(Arena, result);

    /// <summary>A function that gives a number.</summary>
    public static VirtualAddress EmitHelper(CodeArena arena, int result)
    {
        var a = new Assembler(64);
        a.mov(eax, result);
        a.ret();
        return arena.Emit(a, new SiteEmitter(s_none)).Address;
    }

    /// <summary>long f(long rdi): rax = 0, one site of each slot named, rax back.</summary>
    public CodeBlock EmitFunction(params ReadOnlySpan<SiteWish> wishes)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(Layout);
        a.sub(rsp, 8);
        a.xor(eax, eax);
        foreach (SiteWish wish in wishes)
        {
            sites.Emit(a, Layout[wish.Slot], wish.Budget, wish.Clobbers ?? RegisterSet.Rax, wish.Placement, SiteTraits.None,
                wish.Forwarding, wish.Start);
        }

        a.add(rsp, 8);
        a.ret();
        sites.EmitForwarding(a);
        return Arena.Emit(a, sites);
    }

    public static long Call(CodeBlock block, long argument = 0) => ((delegate* unmanaged<long, long>)block.Address.Value)(argument);

    /// <summary>The site of an outcome.</summary>
    public LiveSite Find(SiteOutcome outcome)
    {
        Assert.True(Arena.TryFindSite(outcome.Address, out LiveSite site));
        Assert.Equal(outcome.Address, site.Address);
        return site;
    }

    public static byte[] Snapshot(IEnumerable<CodeBlock> blocks) => [.. blocks.SelectMany(static b => b.ToArray())];

    public void Dispose() => Arena.Dispose();
}

/// <summary>A site to be emitted.</summary>
internal readonly record struct SiteWish(int Slot, int Budget = 6, SitePlacement Placement = SitePlacement.None, bool Forwarding = false,
    int Start = -1, RegisterSet? Clobbers = null)
{
    /// <summary>A site across a line's end.</summary>
    public static SiteWish Straddling(int slot = 0, int budget = 6, bool forwarding = false) =>
        new(slot, budget, SitePlacement.None, forwarding, Start: 60);

    /// <summary>A site inside an aligned 8.</summary>
    public static SiteWish Aligned(int slot = 0) => new(slot, 6, SitePlacement.InsideAligned8);
}
