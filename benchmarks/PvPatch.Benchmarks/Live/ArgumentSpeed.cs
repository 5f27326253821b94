using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// What is saved where the argument of an operation that is off is not computed: a site that has its argument, beside code that computes
/// the argument in any case and calls, tests a boolean, or has a site without an argument. The argument is a 64-bit number, as the guest's
/// address is at a tracing site of a translator.
/// </summary>
internal sealed class ArgumentSpeed : IDisposable
{
    private const int Copies = 5;
    private const int Number = 3;
    private const int NumberAt = 0x400; // in bytes, from what rdi leads to
    private const int FlagAt = 0x408;
    private const ulong FirstArgument = 0x7f12_3456_0000;

    // The argument in r8, which nothing else needs; nothing else changes.
    private static readonly CallConvention s_convention = CallConvention.Create(
        "trace", [RegisterSet.R8], RegisterSet.None, RegisterSet.R8);

    private readonly CodeArena _arena = CodeArena.Reserve(size: 64 << 20);
    private readonly OpsLayout _layout = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("trace"), s_convention));
    private readonly LivePatcher _patcher;
    private readonly VirtualAddress _nothing;

    public ArgumentSpeed()
    {
        _patcher = new LivePatcher(_arena, _layout);
        var a = new Assembler(64);
        a.ret();
        _nothing = _arena.Emit(a).Address;
        _patcher.Switch(Backend.Create("off", _layout, static b => b.Nop("t.trace")));
    }

    public void Run(int rounds, Goals goals)
    {
        double[] times = SiteRivals.Compare("an argument, the operation off", rounds,
        [
            Loop("no operation in the code", static (_, _, _) => { }),
            Loop("site with an argument", (a, s, site) => Emit(a, s, FirstArgument + (ulong)site)),
            Loop("argument computed, site", (a, s, site) =>
            {
                Set(a, site);
                Emit(a, s, default);
            }),
            Loop("boolean tested, then the argument", (a, _, site) => Test(a, () => Set(a, site))),
            Loop("argument computed, boolean tested", (a, _, site) =>
            {
                Set(a, site);
                Test(a, static () => { });
            }),
            Loop("argument computed, call", (a, _, site) =>
            {
                Set(a, site);
                a.call(_nothing.Value);
            }),
        ]);
        goals.AtMost("site with an argument, off, to none", 1.25, times[1] / times[0]);
        goals.Below("site with an argument to one whose argument is computed", 1, times[1] / times[2]);
        goals.Below("site with an argument to a tested boolean", 1, times[1] / times[3]);
        goals.Below("site with an argument to argument and call", 0.5, times[1] / times[5]);
    }

    public void Dispose()
    {
        _patcher.Dispose();
        _arena.Dispose();
    }

    private void Emit(Assembler a, SiteEmitter sites, SiteArgument argument) =>
        sites.Emit(a, _layout[0], clobbers: RegisterSet.R8, placement: SitePlacement.InsideAligned8, argument: argument);

    private static void Set(Assembler a, int site) => a.mov(r8, FirstArgument + (ulong)site);

    /// <summary>A call that is jumped over where a flag is off.</summary>
    private void Test(Assembler a, Action call)
    {
        Label over = a.CreateLabel();
        a.cmp(__byte_ptr[rdi + FlagAt], 0);
        a.je(over);
        call();
        a.call(_nothing.Value);
        a.Label(ref over);
    }

    private SiteRival Loop(string name, Action<Assembler, SiteEmitter, int> body) => new(name, [.. Enumerable.Range(0, Copies).Select(_ =>
    {
        CodeBlock block = SiteFunction.Emit(_arena, _layout, SiteRivals.Sites, (a, sites, site) =>
        {
            body(a, sites, site);
            a.mov(eax, __dword_ptr[rdi + NumberAt]);
        }, out CodeLabels _);
        _patcher.Bind(block);
        int[] data = GC.AllocateArray<int>(FlagAt / sizeof(int) + 1, pinned: true);
        data[NumberAt / sizeof(int)] = Number;
        return SiteRivals.RunnerOf(block, data);
    })], Number);
}
