using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.LiveTorture;

/// <summary>
/// Functions whose sites follow keys, branches, calls, a constant and the backend, and operations. The host tells in a word what each setting is: its value, or that
/// it is in motion. A site reads the word, runs, reads it again: where it stood still, the site must have done exactly that. So every
/// execution is checked, and one that still runs what was replaced before the batch was over is a fault.
/// </summary>
internal sealed class SettingCode : IDisposable
{
    public const int Ways = 8;
    public const int Loops = 64;
    public const int ConstantValues = 4;
    public const int Nothing = 7; // what eax holds where a call does nothing
    public const long InMotion = 0x100; // in a word, above the value

    // Words of counts, one run of them for each kind of site; behind them the loops that are left.
    public const int KeyCounts = 0;
    public const int PairCounts = 2;
    public const int BranchCounts = 6;
    public const int CallCounts = BranchCounts + Ways + 1;
    public const int OpCounts = CallCounts + Nothing + 1;
    public const int ConstantCounts = OpCounts + 4;
    public const int VariantCounts = ConstantCounts + ConstantValues;
    public const int Counts = VariantCounts + 4;
    private const int LoopsLeft = Counts;
    private const int SitesOfKind = 12;

    private static readonly AssemblerRegister64[] s_kept = [rcx, rdx, rsi, rdi, r8, r9, r10, r11];
    private static readonly AssemblerRegister64[] s_saved = [rbx, rbp, r12, r13, r14, r15];

    private readonly CodeArena _far = CodeArena.Reserve(0x10_0000_0000, 1 << 20);
    private readonly TortureOptions _options;
    private readonly Random _random;

    public SettingCode(TortureOptions options)
    {
        _options = options;
        _random = new Random(options.Seed);
        Layout = OpsLayout.Create(static b => b.Table("t", static t => t.Slot("op", convention: CallConvention.CalleeSave)));
        Arena = CodeArena.Reserve(size: 16 << 20);
        VirtualAddress two = Helper(Arena, 2);
        Targets = [Helper(Arena, 1), two, Helper(_far, 3)];
        Backends =
        [
            Backend.Create("inlined", Layout, static b => b.Inline("t.op", static a => a.mov(eax, 1))),
            Backend.Create("direct", Layout, b => b.Call("t.op", two, "two", RegisterSet.Rax)),
            Backend.Create("outlined", Layout, static b => b.Inline("t.op", static a =>
            {
                a.lea(eax, __[rax + 1]);
                a.lea(eax, __[rax + 2]);
            })),
        ];
    }

    public CodeArena Arena { get; }

    public OpsLayout Layout { get; }

    /// <summary>The backends: they give 1, 2, 3.</summary>
    public Backend[] Backends { get; }

    /// <summary>What calls are given: they give 1, 2, 3; the last is out of reach.</summary>
    public VirtualAddress[] Targets { get; }

    public StaticKey[] Keys { get; } = [new("a"), new("b"), new("c"), new("d", enabled: true)];

    public MultiBranch[] Branches { get; } = [new("mode", Ways), new("other", Ways, way: 3)];

    public StaticCall[] Calls { get; } = [new("notify"), new("trace")];

    public CodeConstant Constant { get; } = new("limit", 1);

    /// <summary>Number of words: one for each key, each pair of keys, each branch, each call, the operation, and the constant.</summary>
    public int WordCount => ConstantWord + 1;

    public int PairWord => Keys.Length;

    public int BranchWord => PairWord + Keys.Length / 2;

    public int CallWord => BranchWord + Branches.Length;

    public int OpWord => CallWord + Calls.Length;

    public int ConstantWord => OpWord + 1;

    public bool Has(SiteKind kind) => _options.Sites == kind || _options.Sites == SiteKind.Settings;

    public void Dispose()
    {
        Arena.Dispose();
        _far.Dispose();
    }

    /// <summary>long function(long* counts, long* words): 0, or the number of the site that failed, from 1.</summary>
    public CodeBlock Emit()
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(Layout);
        Label loop = a.CreateLabel();
        Label leave = a.CreateLabel();
        foreach (AssemblerRegister64 register in s_saved)
        {
            a.push(register);
        }

        a.sub(rsp, 8);
        a.mov(r15, rdi);
        a.mov(r14, rsi);
        a.mov(rbp, rsp);
        a.mov(__qword_ptr[r15 + LoopsLeft * 8], Loops);
        TortureCode.SetKept(a);
        a.Label(ref loop);
        var functions = new List<Action>(); // behind the function: what tail calls and entries stand in
        int number = 0;
        for (int i = 0; i < SitesOfKind; i++)
        {
            foreach (SiteKind kind in new[]
            {
                SiteKind.Keys, SiteKind.Branches, SiteKind.Calls, SiteKind.Constants, SiteKind.Variants, SiteKind.Settings,
            })
            {
                if (Has(kind))
                {
                    EmitSite(a, sites, kind, i, ++number, leave, functions);
                }
            }
        }

        a.dec(__qword_ptr[r15 + LoopsLeft * 8]);
        a.jnz(loop);
        a.xor(ebx, ebx);
        a.Label(ref leave);
        a.mov(rax, rbx);
        a.mov(rsp, rbp);
        a.add(rsp, 8);
        foreach (AssemblerRegister64 register in s_saved.Reverse())
        {
            a.pop(register);
        }

        a.ret();
        functions.ForEach(static f => f());
        return Arena.Emit(a, sites);
    }

    private static VirtualAddress Helper(CodeArena arena, int result)
    {
        var a = new Assembler(64);
        a.mov(eax, result);
        a.ret();
        return arena.Emit(a).Address;
    }

    private void EmitSite(Assembler a, SiteEmitter sites, SiteKind kind, int index, int number, Label leave, List<Action> functions)
    {
        switch (kind)
        {
            case SiteKind.Keys when index % 4 == 3:
                int pair = _random.Next(Keys.Length / 2);
                StaticKey[] keys = [Keys[2 * pair], Keys[2 * pair + 1]];
                Label[] states = [default, a.CreateLabel(), a.CreateLabel(), a.CreateLabel()];
                Before(a, PairWord + pair, number, 0);
                sites.Branch(a, keys, states);
                Land(a, states);
                Behind(a, PairWord + pair, PairCounts, states.Length, leave, keepsCarry: true);
                break;
            case SiteKind.Keys:
                int key = _random.Next(Keys.Length);
                BranchHint hint = (BranchHint)(index & 1);
                Label[] jumps = hint == BranchHint.Unlikely ? [default, a.CreateLabel()] : [a.CreateLabel(), default];
                Before(a, key, number, 0);
                sites.Branch(a, Keys[key], jumps[hint == BranchHint.Unlikely ? 1 : 0], hint, _random.Next(2) == 0 ? 2 : 5);
                Land(a, jumps);
                Behind(a, key, KeyCounts, 2, leave, keepsCarry: true);
                break;
            case SiteKind.Branches:
                int branch = _random.Next(Branches.Length);
                Label[] ways = [.. Enumerable.Range(0, Ways + 1).Select(i => i == 0 ? default : a.CreateLabel())];
                Label[] given = [.. ways.Skip(1)];
                given[Ways / 2] = _options.Protocol == Protocol.LabelLeftOut ? default : given[Ways / 2];
                Before(a, BranchWord + branch, number, 0);
                sites.Branch(a, Branches[branch], given, _random.Next(2) == 0 ? 2 : 5);
                Land(a, ways);
                Behind(a, BranchWord + branch, BranchCounts, Ways + 1, leave, keepsCarry: true);
                break;
            case SiteKind.Calls:
                int call = _random.Next(Calls.Length);
                Before(a, CallWord + call, number, Nothing);
                EmitCall(a, sites, Calls[call], index % 4, functions);
                Behind(a, CallWord + call, CallCounts, Nothing + 1, leave, keepsCarry: false);
                break;
            case SiteKind.Constants:
                Before(a, ConstantWord, number, 0);
                sites.Constant(a, Constant, (index % 3) switch
                {
                    0 => static b => b.mov(eax, 0),
                    1 => static b => b.mov(rax, 0L), // ten bytes
                    _ => static b => b.lea(eax, __[rax + int.MaxValue]),
                });
                Behind(a, ConstantWord, ConstantCounts, ConstantValues, leave, keepsCarry: true);
                break;
            case SiteKind.Variants:
                Before(a, OpWord, number, 0);
                sites.Variants(
                    a, new SiteVariant(Backends[0], static b => b.mov(eax, 1)), new SiteVariant(Backends[1], static b => b.mov(eax, 2)),
                    new SiteVariant(Backends[2], static b =>
                    {
                        b.lea(eax, __[rax + 1]);
                        b.lea(eax, __[rax + 2]);
                    }));
                Behind(a, OpWord, VariantCounts, 4, leave, keepsCarry: true);
                break;
            default:
                Before(a, OpWord, number, 0);
                sites.Emit(a, Layout["t.op"], _random.Next(6, 9), RegisterSet.Rax);
                Behind(a, OpWord, OpCounts, 4, leave, keepsCarry: true);
                break;
        }
    }

    /// <summary>A call in each form; those that are the last or first thing of a function stand in one.</summary>
    private static void EmitCall(Assembler a, SiteEmitter sites, StaticCall call, int form, List<Action> functions)
    {
        if (form == 0)
        {
            sites.Call(a, call);
            return;
        }

        Label function = a.CreateLabel();
        a.call(function);
        functions.Add(() =>
        {
            a.Label(ref function);
            switch (form)
            {
                case 1:
                    sites.Jump(a, call);
                    break;
                case 2:
                    sites.JumpIf(a, ConditionCode.b, call); // the carry is set: it always goes
                    a.ud2();
                    break;
                default:
                    sites.Entry(a, call);
                    a.ret();
                    break;
            }
        });
    }

    /// <summary>What the setting was told to be, and the state in which a site is come to.</summary>
    private static void Before(Assembler a, int word, int number, int result)
    {
        a.mov(ebx, number);
        a.mov(r13, __qword_ptr[r14 + word * 8]);
        a.mov(eax, result);
        a.stc();
    }

    /// <summary>Where the labels lead: eax says which it was, 0 behind the site itself.</summary>
    private static void Land(Assembler a, Label[] labels)
    {
        Label over = a.CreateLabel();
        int falls = Array.FindIndex(labels, static l => l.IsEmpty);
        a.mov(eax, falls);
        for (int i = 0; i < labels.Length; i++)
        {
            if (!labels[i].IsEmpty)
            {
                a.jmp(over);
                a.Label(ref labels[i]);
                a.mov(eax, i);
            }
        }

        a.Label(ref over);
    }

    private static void Behind(Assembler a, int word, int counts, int results, Label leave, bool keepsCarry)
    {
        Label moved = a.CreateLabel();
        if (keepsCarry)
        {
            a.jnc(leave);
        }

        a.cmp(rsp, rbp);
        a.jne(leave);
        a.cmp(r13, __qword_ptr[r14 + word * 8]);
        a.jne(moved);
        a.test(r13d, (int)InMotion);
        a.jnz(moved);
        a.movzx(r13d, r13b);
        a.cmp(eax, r13d);
        a.jne(leave);
        a.Label(ref moved);
        a.cmp(rax, results);
        a.jae(leave);
        a.inc(__qword_ptr[r15 + rax * 8 + counts * 8]);
        for (int i = 0; i < s_kept.Length; i++)
        {
            a.lea(r13, __[r12 + i]);
            a.cmp(s_kept[i], r13);
            a.jne(leave);
        }
    }
}
