using Iced.Intel;
using PvPatch.Live;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Settings;

/// <summary>Functions that give the number of the way their branch takes: 0 where it falls through.</summary>
internal static unsafe class SettingCode
{
    /// <summary>A branch whose labels give 1, 2, … in order; where <paramref name="falls"/> has a bit, that way falls through.</summary>
    public static CodeBlock Emit(CodeArena arena, Func<SiteEmitter, Assembler, Label[], SiteTicket> branch, int ways, ulong falls = 0)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter();
        Label[] real = [.. Enumerable.Range(0, ways).Select(_ => a.CreateLabel())];
        branch(sites, a, [.. real.Select((l, i) => (falls >> i & 1) != 0 ? default : l)]);
        a.xor(eax, eax);
        a.ret();
        for (int i = 0; i < ways; i++)
        {
            a.Label(ref real[i]);
            a.mov(eax, i + 1);
            a.ret();
        }

        return arena.Emit(a, sites);
    }

    /// <summary>A branch on one key: 0 where it falls through, 1 where it jumps.</summary>
    public static CodeBlock Emit(CodeArena arena, StaticKey key, BranchHint hint = BranchHint.Unlikely, int length = 5) =>
        Emit(arena, (sites, a, labels) => sites.Branch(a, key, labels[0], hint, length), ways: 1);

    public static int Run(CodeBlock block) => ((delegate* unmanaged<int>)block.Address.Value)();
}
