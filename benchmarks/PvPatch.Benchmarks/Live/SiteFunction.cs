using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Benchmarks.Live;

/// <summary>
/// A generated <c>long f(int* data, long loops)</c>: a loop over many sites, the sum of what they leave in eax (32 bits).
/// </summary>
internal static unsafe class SiteFunction
{
    /// <summary>What eax holds where nothing at the sites writes it.</summary>
    public const int Untouched = 1;

    // push, push, push, mov r12,rsi, four times xor r32,r32, mov eax,imm32: 1 + 2 + 2 + 3 + 8 + 5 bytes.
    private const int PrologueLength = 21;
    private const int LineSize = 64;
    private const int BeforeLineEnd = 60;
    private const int AddLength = 2;

    /// <summary>
    /// The sums: four, for with one each site would wait for the one before, and everything that costs less than that would look the same.
    /// </summary>
    private static readonly AssemblerRegister32[] s_sums = [ebx, ecx, edx, esi];

    /// <summary>Emits the function.</summary>
    /// <param name="arena">Where to.</param>
    /// <param name="layout">The layout of its sites.</param>
    /// <param name="sites">How many times.</param>
    /// <param name="body">
    /// Puts one site, or what is written by hand in its place, into the loop; it may destroy rax only, and reads data by rdi.
    /// </param>
    public static CodeBlock Emit(CodeArena arena, OpsLayout layout, int sites, Action<Assembler, SiteEmitter> body) =>
        Emit(arena, layout, sites, (a, emitter, _) => body(a, emitter), out _);

    /// <summary>As the other form; the body is told which site it is, and where its labels are.</summary>
    public static CodeBlock Emit(
        CodeArena arena, OpsLayout layout, int sites, Action<Assembler, SiteEmitter, int> body, out CodeLabels labels)
    {
        var a = new Assembler(64);
        var emitter = new SiteEmitter(layout);
        Label loop = Begin(a);
        a.Label(ref loop);
        for (int i = 0; i < sites; i++)
        {
            body(a, emitter, i);
            a.add(s_sums[i % s_sums.Length], eax);
        }

        return End(arena, a, emitter, loop, out labels);
    }

    /// <summary>The same with every 6-byte site across the end of a line, where only the guard can change it.</summary>
    public static CodeBlock EmitAcrossLines(CodeArena arena, OpSlot slot, OpsLayout layout, int sites)
    {
        const int SiteLength = 6;
        var a = new Assembler(64);
        var emitter = new SiteEmitter(layout);
        Label loop = Begin(a);
        a.nop(BeforeLineEnd - PrologueLength);
        a.Label(ref loop);
        for (int i = 0; i < sites; i++)
        {
            emitter.Emit(a, slot, SiteLength, RegisterSet.Rax, SitePlacement.None);
            a.add(s_sums[i % s_sums.Length], eax);
            a.nop(LineSize - SiteLength - AddLength);
        }

        return End(arena, a, emitter, loop, out _);
    }

    /// <summary>Runs the function.</summary>
    public static long Run(VirtualAddress function, int* data, long loops) =>
        ((delegate* unmanaged<int*, long, long>)function.Value)(data, loops);

    private static Label Begin(Assembler a)
    {
        Label loop = a.CreateLabel();
        a.push(rbx);
        a.push(r12);
        a.push(r13); // three: the stack is aligned for calls at the sites
        a.mov(r12, rsi);
        foreach (AssemblerRegister32 sum in s_sums)
        {
            a.xor(sum, sum);
        }

        a.mov(eax, Untouched);
        return loop;
    }

    private static CodeBlock End(CodeArena arena, Assembler a, SiteEmitter emitter, Label loop, out CodeLabels labels)
    {
        a.dec(r12);
        a.jnz(loop);
        a.lea(eax, __[rbx + rcx]);
        a.add(eax, edx);
        a.add(eax, esi);
        a.pop(r13);
        a.pop(r12);
        a.pop(rbx);
        a.ret();
        return arena.Emit(a, emitter, out labels);
    }
}
