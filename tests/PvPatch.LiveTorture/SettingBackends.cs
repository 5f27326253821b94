using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.LiveTorture;

/// <summary>
/// Four backends. Under backend n every operation gives n above what it is given: by nothing, in one instruction, by a call, in two
/// instructions.
/// </summary>
internal sealed class SettingBackends
{
    private static readonly ExecutorWord s_own = new("own");
    private static readonly ExecutorWord s_count = new("count");

    /// <summary>The operation of sites that ask for links.</summary>
    public const string Ask = "t.ask";

    private readonly CodeArena _arena;
    private readonly VirtualAddress[] _ask;

    public SettingBackends(CodeArena arena, bool wordsBehindRegister)
    {
        _arena = arena;
        Words = new ExecutorWords(arena, [s_own, s_count], wordsBehindRegister ? rdx : null);
        Layout = OpsLayout.Create(static b => b
            .Table("t", static t => t
                .Slot("op").Slot("arg").Slot("where").Slot("own").Slot("count").Slot("ask")
                .Slot("v0", SlotKind.Jump).Slot("v1", SlotKind.Jump), CallConvention.CalleeSave)
            .Table("u", static t => t.Slot("add"), CallConvention.KernelSysV));
        _ask = [AskedLinks.EmitStub(arena), AskedLinks.EmitStub(arena)];
        All = [Make(0, "nothing"), Make(1, "inlined"), Make(2, "direct"), Make(3, "outlined")];
    }

    public OpsLayout Layout { get; }

    /// <summary>An executor's words: a number of its own, and how often the code has counted.</summary>
    public ExecutorWords Words { get; }

    public static ExecutorWord Own => s_own;

    public static ExecutorWord Count => s_count;

    public Backend[] All { get; }

    public static VirtualAddress Function(CodeArena arena, Action<Assembler> write)
    {
        var a = new Assembler(64);
        write(a);
        a.ret();
        return arena.Emit(a).Address;
    }

    private Backend Make(int n, string name) => Backend.Create(name, Layout, b =>
    {
        b.Set("t.op", n == 0 ? Operation.Nop : Plain(n, static (a, add) => a.lea(eax, __[rax + add])));
        b.Set("t.arg", n == 0 ? Operation.Nop : Plain(n, static (a, add) => a.lea(rax, __[rdi + add])));
        b.Set("t.where", Plain(n, static (a, add) => a.lea(rax, __[rdi + rsi + add])));
        b.Set("t.own", Plain(n, (a, add) =>
        {
            a.mov(rax, Words.Operand(s_own));
            Add(a, add);
        }));
        b.Set("t.count", Plain(n, (a, add) =>
        {
            a.inc(Words.Operand(s_count)); // the carry stays
            Add(a, add);
        }, RegisterSet.Flags));
        Operation ask = Operation.Call(_ask[n / 2], destroys: RegisterSet.Rax);
        b.Set(Ask, n % 2 == 0 ? ask : ask.LeftAloneByBackend());
        b.Jump("t.v0", Function(_arena, a => a.mov(eax, n))).Jump("t.v1", Function(_arena, a => a.mov(eax, n)));
        b.Set("u.add", n == 2 ? Operation.Call(Function(_arena, Greedy)) : Operation.Inline(InlineBody.Create((a, c) =>
        {
            a.lea(c.ResultRegister, __[c.ArgumentRegister(0) + c.ArgumentRegister(1) + Math.Min(n, 1)]);
            if (n == 3)
            {
                a.lea(c.ResultRegister, __[c.ResultRegister + 2]);
            }
        })));
    });

    /// <summary>An operation of backend n: what is written gives as much more as it is told.</summary>
    private Operation Plain(int n, Action<Assembler, int> write, RegisterSet destroys = default) => n switch
    {
        2 => Operation.Call(Function(_arena, a => write(a, 2)), destroys: RegisterSet.Rax | destroys),
        3 => Operation.Inline(InlineBody.Create(a =>
        {
            write(a, 1);
            a.lea(rax, __[rax + 2]);
        })),
        _ => Operation.Inline(InlineBody.Create(a => write(a, n))),
    };

    private static void Add(Assembler a, int add)
    {
        if (add > 0)
        {
            a.lea(rax, __[rax + add]);
        }
    }

    /// <summary>Destroys everything that its convention lets it.</summary>
    private static void Greedy(Assembler a)
    {
        a.lea(rax, __[rdi + rsi + 2]);
        foreach (AssemblerRegister64 register in CheckedSite.Kept)
        {
            a.xor(register, register); // and the carry
        }
    }
}
