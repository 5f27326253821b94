using Iced.Intel;
using PvPatch.Live;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// What a choice costs the code it stands in: a key's site, a branch of eight ways, a static call, each beside the same code with the
/// choice made by hand when it was generated, and with the ordinary ways to choose when it runs. Every choice is one a processor predicts.
/// </summary>
internal sealed unsafe class SettingSpeed : IDisposable
{
    private const int Sites = SiteRivals.Sites;
    private const int Copies = 5;
    private const int Ways = 8;
    private const int Chosen = 4;
    private const int Value = 3;

    // What rdi leads to, in bytes: the number that is loaded, a flag, the way, the callee, and a jump table for each site.
    private const int Number = 0x400;
    private const int Flag = 0x408;
    private const int Way = 0x410;
    private const int Callee = 0x418;
    private const int Tables = 0x480;

    private readonly CodeArena _arena = CodeArena.Reserve(size: 64 << 20);
    private readonly OpsLayout _layout = OpsLayout.Create(static _ => { });
    private readonly LivePatcher _patcher;
    private readonly StaticKey _off = new("off");
    private readonly StaticKey _on = new("on", enabled: true);
    private readonly MultiBranch _branch = new("mode", Ways, Chosen);
    private readonly StaticCall _call = new("callee");
    private readonly VirtualAddress _callee;

    public SettingSpeed()
    {
        _patcher = new LivePatcher(_arena, _layout);
        var a = new Assembler(64);
        a.mov(eax, __dword_ptr[rdi + Number]);
        a.ret();
        _callee = _arena.Emit(a).Address;
        _patcher.Apply(c => c.Target(_call, _callee));
    }

    public void Run(int rounds, Goals goals)
    {
        var managed = new ManagedChoice(Sites, Number / sizeof(int));
        double[] keys = SiteRivals.Compare("a key that is off", rounds,
        [
            Generated("no choice", static (a, _, _) => Load(a)),
            Generated("key, 5 bytes", (a, s, _) => Choose(a, over => s.Branch(a, _off, over))),
            Generated("key, 2 bytes", (a, s, _) => Choose(a, over => s.Branch(a, _off, over, length: 2))),
            Generated("tested boolean", static (a, _, _) => Choose(a, over => Test(a, over, 0))),
            new("C#, no choice", [managed.None], Value),
            new("C#, static readonly bool", [managed.ReadOnly], Value) { Baseline = 4 },
            new("C#, static bool", [managed.Plain], Value) { Baseline = 4 },
            new("C#, volatile field", [managed.Volatile], Value) { Baseline = 4 },
            new("C#, delegate", [managed.Delegate], Value) { Baseline = 4 },
        ]);
        double[] jumps = SiteRivals.Compare("a key that is on", rounds,
        [
            Generated("jump by hand", static (a, _, _) => Choose(a, over => a.jmp(over)), SiteFunction.Untouched),
            Generated("key, 5 bytes", (a, s, _) => Choose(a, over => s.Branch(a, _on, over)), SiteFunction.Untouched),
            Generated("key, 2 bytes", (a, s, _) => Choose(a, over => s.Branch(a, _on, over, length: 2)), SiteFunction.Untouched),
            Generated("tested boolean", static (a, _, _) => Choose(a, over => Test(a, over, 1)), SiteFunction.Untouched),
        ]);
        double[] ways = SiteRivals.Compare("one of eight ways", rounds,
        [
            Generated("jump by hand", static (a, _, _) => Go(a, labels => a.jmp(labels[Chosen])), Chosen),
            Generated("multiway branch", (a, s, _) => Go(a, labels => s.Branch(a, _branch, labels)), Chosen),
            WithTables("jump table"),
            Generated("compare chain", static (a, _, _) => Go(a, labels => CompareAll(a, labels)), Chosen),
        ]);
        double[] calls = SiteRivals.Compare("a call", rounds,
        [
            Generated("direct by hand", (a, _, _) => a.call(_callee.Value)),
            Generated("static call", (a, s, _) => s.Call(a, _call)),
            Generated("call through memory", static (a, _, _) => a.call(__qword_ptr[rdi + Callee])),
        ]);
        goals.AtMost("key that is off, 5 bytes, to no choice", 1.25, keys[1] / keys[0]);
        goals.Below("key that is off, 5 bytes, to a tested boolean", 1, keys[1] / keys[3]);
        goals.AtMost("key that is on, 5 bytes, to a jump by hand", 1.1, jumps[1] / jumps[0]);
        goals.AtMost("multiway branch to a jump by hand", 1.1, ways[1] / ways[0]);
        goals.Below("multiway branch to a jump table", 1, ways[1] / ways[2]);
        goals.Below("multiway branch to a compare chain", 1, ways[1] / ways[3]);
        goals.AtMost("static call to a direct call by hand", 1.1, calls[1] / calls[0]);
        goals.AtMost("static call to a call through memory", 1.05, calls[1] / calls[2]);
    }

    public void Dispose()
    {
        _patcher.Dispose();
        _arena.Dispose();
    }

    private static void Load(Assembler a) => a.mov(eax, __dword_ptr[rdi + Number]);

    /// <summary>A load that is jumped over where the choice says so.</summary>
    private static void Choose(Assembler a, Action<Label> choose)
    {
        Label over = a.CreateLabel();
        choose(over);
        Load(a);
        a.Label(ref over);
    }

    private static void Test(Assembler a, Label over, int flag)
    {
        a.cmp(__byte_ptr[rdi + Flag + flag], 0);
        a.jne(over);
    }

    /// <summary>Eight ways, each of which gives its number.</summary>
    private static Label[] Go(Assembler a, Action<Label[]> go)
    {
        Label over = a.CreateLabel();
        Label[] ways = [.. Enumerable.Range(0, Ways).Select(_ => a.CreateLabel())];
        go(ways);
        for (int i = 0; i < Ways; i++)
        {
            a.Label(ref ways[i]);
            a.mov(eax, i);
            if (i < Ways - 1)
            {
                a.jmp(over);
            }
        }

        a.Label(ref over);
        return ways;
    }

    private static void CompareAll(Assembler a, Label[] ways)
    {
        a.mov(eax, __dword_ptr[rdi + Way]);
        for (int i = 0; i < Ways; i++)
        {
            a.cmp(eax, i);
            a.je(ways[i]);
        }
    }

    private SiteRival Generated(string name, Action<Assembler, SiteEmitter, int> body, int expected = Value) =>
        new(name, [.. Enumerable.Range(0, Copies).Select(_ =>
        {
            CodeBlock block = SiteFunction.Emit(_arena, _layout, Sites, body, out CodeLabels _);
            return SiteRivals.RunnerOf(block, Data());
        })], expected);

    private SiteRival WithTables(string name) => new(name, [.. Enumerable.Range(0, Copies).Select(_ =>
    {
        var ways = new Label[Sites][];
        CodeBlock block = SiteFunction.Emit(_arena, _layout, Sites, (a, _, site) =>
        {
            a.mov(eax, __dword_ptr[rdi + Way]);
            ways[site] = Go(a, _ => a.jmp(__qword_ptr[rdi + rax * 8 + (Tables + site * Ways * sizeof(long))]));
        }, out CodeLabels labels);
        int[] data = Data();
        fixed (int* first = data)
        {
            for (int i = 0; i < Sites * Ways; i++)
            {
                ((ulong*)((byte*)first + Tables))[i] = labels[ways[i / Ways][i % Ways]].Value;
            }
        }

        return SiteRivals.RunnerOf(block, data);
    })], Chosen);

    private int[] Data()
    {
        int[] data = GC.AllocateArray<int>((Tables + Sites * Ways * sizeof(long)) / sizeof(int), pinned: true);
        data[Number / sizeof(int)] = Value;
        data[Flag / sizeof(int)] = 0x100; // off, on
        data[Way / sizeof(int)] = Chosen;
        fixed (int* first = data)
        {
            *(ulong*)((byte*)first + Callee) = _callee.Value;
        }

        return data;
    }
}
