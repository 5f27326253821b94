using Iced.Intel;
using PvPatch.Live;
using PvPatch.Machine;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Tests.Live.Behaviour;

/// <summary>A site of a probe.</summary>
internal readonly record struct Shape(int Slot, bool Narrow = false, int Budget = 6, int Start = 0, bool Forwarding = false)
{
    public static Shape Atomic(int slot = 0, bool narrow = false) => new(slot, narrow);

    public static Shape Guarded(int slot = 0, bool narrow = false) => new(slot, narrow, Start: 60);

    public static Shape Forwarded(int slot = 0, bool narrow = false) => new(slot, narrow, Start: 60, Forwarding: true);

    /// <summary>Its first byte is the last of 8: nothing changes it live.</summary>
    public static Shape Fixed(int slot = 0, bool narrow = false) => new(slot, narrow, Start: 63);
}

/// <summary>What a run of a probe saw.</summary>
/// <param name="Results">What each site gave, four bits each, the first lowest.</param>
/// <param name="IsKept">Whether everything was kept that the sites do not let go: registers, vector registers, the stack pointer.</param>
internal readonly record struct Seen(ulong Results, bool IsKept);

/// <summary>
/// A generated function that runs its sites one after another and notes what each gives and whether it kept what it must.
/// </summary>
internal static unsafe class Probe
{
    private const int Sentinel = 0x5eed1234;

    private static readonly AssemblerRegister64[] s_kept = [rcx, rdx, rsi, rdi, r8, r9, r10, r11];

    public static CodeBlock Emit(LiveHost host, params ReadOnlySpan<Shape> shapes)
    {
        var a = new Assembler(64);
        var sites = new SiteEmitter(host.Layout);
        Label kept = a.CreateLabel();
        AssemblerRegister64[] saved = [rbx, r12, r13, r14];
        foreach (AssemblerRegister64 register in saved)
        {
            a.push(register);
        }

        a.sub(rsp, 24);
        a.mov(r13, rsp);
        a.xor(ebx, ebx);
        a.xor(r12d, r12d);
        for (int i = 0; i < shapes.Length; i++)
        {
            Shape shape = shapes[i];
            foreach (AssemblerRegister64 register in s_kept)
            {
                a.mov(register, Sentinel);
            }

            a.movq(xmm1, rcx);
            a.xor(eax, eax);
            RegisterSet? clobbers = shape.Narrow ? HostBackends.Narrow : null;
            sites.Emit(a, host.Layout[shape.Slot], shape.Budget, clobbers, SitePlacement.None, Plans.SiteTraits.None, shape.Forwarding,
                shape.Start);
            a.mov(r14, rsp);
            a.xor(r14, r13);
            a.or(r12, r14);
            a.mov(rsp, r13);
            if (shape.Narrow)
            {
                Check(a);
            }

            a.and(eax, 0xf);
            a.shl(rax, (byte)(4 * i));
            a.or(rbx, rax);
        }

        a.mov(rax, rbx);
        a.test(r12, r12);
        a.je(kept);
        a.bts(rax, 63);
        a.Label(ref kept);
        a.add(rsp, 24);
        foreach (AssemblerRegister64 register in saved.Reverse())
        {
            a.pop(register);
        }

        a.ret();
        sites.EmitForwarding(a);
        return host.Arena.Emit(a, sites);
    }

    public static Seen Run(CodeBlock block)
    {
        long result = ((delegate* unmanaged<long>)block.Address.Value)();
        return new Seen((ulong)result & 0x7fff_ffff_ffff_ffff, result >= 0);
    }

    /// <summary>Runs it, and fails where a register was lost or the results are others.</summary>
    public static void Expect(CodeBlock block, params ReadOnlySpan<int> results)
    {
        ulong expected = 0;
        for (int i = 0; i < results.Length; i++)
        {
            expected |= (ulong)results[i] << 4 * i;
        }

        Seen seen = Run(block);
        Assert.True(seen.IsKept, "a site lost a register, or the stack pointer, that it does not let go");
        Assert.Equal($"{expected:x}", $"{seen.Results:x}");
    }

    private static void Check(Assembler a)
    {
        foreach (AssemblerRegister64 register in s_kept)
        {
            a.xor(register, Sentinel);
            a.or(r12, register);
        }

        a.movq(rcx, xmm1);
        a.xor(rcx, Sentinel);
        a.or(r12, rcx);
    }
}
