using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Behaviour;

/// <summary>
/// Backends whose functions and bodies each give a number of their own, so that a run tells which one ran: of the slots a and b, 1 and 2
/// inlined, 3 and 4 called, 5 and 6 in islands, 7 and 8 where slot a destroys the vector registers, 9 and 10 through the slot only.
/// </summary>
internal sealed class HostBackends
{
    /// <summary>What a site that cares lets a body destroy.</summary>
    public static readonly RegisterSet Narrow = RegisterSet.Rax | RegisterSet.Flags;

    private readonly LiveHost _host;

    public HostBackends(LiveHost host)
    {
        _host = host;
        OpsLayout layout = host.Layout;
        if (layout.Count < 2)
        {
            Nops = Inlined = Called = Outlined = Vector = Left = null!;
            return;
        }

        Nops = Backend.Create("nops", layout, b => b.Nop("t.a").Nop("t.b"));
        Inlined = Backend.Create("inlined", layout, b => b.Inline("t.a", a => a.mov(eax, 1)).Inline("t.b", a => a.mov(eax, 2)));
        Called = Backend.Create("called", layout, b => b
            .Call("t.a", Function(3, a => a.xor(ecx, ecx)), "three", Narrow | RegisterSet.Rcx).Call("t.b", Function(4), "four", Narrow));
        Outlined = Backend.Create("outlined", layout, b => b.Inline("t.a", a => Sum(a, 5)).Inline("t.b", a => Sum(a, 6)));
        Vector = Backend.Create("vector", layout, b => b
            .Call("t.a", Function(7, a => a.pxor(xmm1, xmm1)), "seven", Narrow | RegisterSet.Vector).Inline("t.b", a => a.mov(eax, 8)));
        Left = Backend.Create("left", layout, b => b
            .Set("t.a", Operation.Call(Function(9), "nine", Narrow).LeftAloneByBackend())
            .Set("t.b", Operation.Call(Function(10), "ten", Narrow).LeftAloneByBackend()));
    }

    public Backend Nops { get; }

    public Backend Inlined { get; }

    /// <summary>Slot a's function destroys rcx, so that narrow sites need a thunk.</summary>
    public Backend Called { get; }

    public Backend Outlined { get; }

    /// <summary>Slot a's function destroys the vector registers: no narrow site can have it.</summary>
    public Backend Vector { get; }

    public Backend Left { get; }

    /// <summary>What the operation of a slot gives under a backend.</summary>
    public int ResultOf(Backend backend, int slot) =>
        ReferenceEquals(backend, Nops) ? 0
        : ReferenceEquals(backend, Inlined) ? 1 + slot
        : ReferenceEquals(backend, Called) ? 3 + slot
        : ReferenceEquals(backend, Outlined) ? 5 + slot
        : ReferenceEquals(backend, Vector) ? 7 + slot
        : 9 + slot;

    /// <summary>A function of the arena, in a block of its own, that gives a number.</summary>
    public VirtualAddress Function(int result, Action<Assembler>? before = null) => FunctionBlock(result, before).Address;

    public PvPatch.Live.CodeBlock FunctionBlock(int result, Action<Assembler>? before = null)
    {
        var a = new Assembler(64);
        before?.Invoke(a);
        a.mov(eax, result);
        a.ret();
        return _host.Arena.Emit(a);
    }

    // Two instructions that take no more than rax.
    private static void Sum(Assembler a, int result)
    {
        a.mov(eax, result - 1);
        a.lea(eax, __[rax + 1]);
    }
}
