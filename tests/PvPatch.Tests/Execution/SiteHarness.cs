using Iced.Intel;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;
using PvPatch.Tests.Shared;
using PvPatch.Tests.Support;
using static Iced.Intel.AssemblerRegisters;
using NativeMemory = System.Runtime.InteropServices.NativeMemory;

namespace PvPatch.Tests.Execution;

/// <summary>What was in the registers behind a site, and what the target noted when it was called.</summary>
internal sealed record SiteRun(ulong[] Before, ulong[] After, ulong FlagsBefore, ulong FlagsAfter, bool WasCalled, ulong TargetStackPointer)
{
    private const ulong WatchedFlags = 0xcd5; // CF PF AF ZF SF DF OF

    /// <summary>
    /// The registers (and the flags as one) that are not what they were. The stack pointer is not in it: a run that lost it does not come
    /// back.
    /// </summary>
    public RegisterSet Changed
    {
        get
        {
            RegisterSet changed = ((FlagsBefore ^ FlagsAfter) & WatchedFlags) != 0 ? RegisterSet.Flags : RegisterSet.None;
            for (int i = 0; i < 16; i++)
            {
                changed |= i != 4 && Before[i] != After[i] ? RegisterSet.General(i) : RegisterSet.None;
            }

            return changed;
        }
    }
}

/// <summary>
/// A function with one site in it, run in this process: every register is given a known value (rbx the address of a real slot table,
/// the first argument register the address of a note), then comes the site, then every register is stored. The stack is aligned at
/// the site as the ABI wants it for a call, with 32 bytes of shadow space.
/// </summary>
internal sealed class SiteHarness
{
    public const ulong Base = 0x10000000; // all branches stay inside the code, so it may run elsewhere
    public const ulong Result = 0x600d600d600d600d;
    public static readonly VirtualAddress Target = Base + 0x800;
    public static readonly AddressRange Room = new(Base + 0x1000, 0x200);
    private const int Budget = 8;
    private const int FlagsIn = 0xcd7; // all watched flags, and bit 1, which is always set
    private const int Stored = 0x80; // where in the note the registers go
    private const int Length = 0x1200;

    private readonly CallConvention _convention;
    private readonly byte[] _code = new byte[Length];
    private readonly VirtualAddress _site;

    /// <summary>Builds the function.</summary>
    /// <param name="convention">A 64-bit convention.</param>
    /// <param name="destroys">What the target really destroys; rax, where in it, becomes <see cref="Result"/>.</param>
    public SiteHarness(CallConvention convention, RegisterSet destroys)
    {
        _convention = convention;
        _code.AsSpan().Fill(0xcc);
        byte[] prologue = Assemble(Prologue);
        prologue.CopyTo(_code, 0);
        _site = Base + (ulong)prologue.Length;
        ((byte[])[0xff, 0x13, 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00]).CopyTo(_code, prologue.Length); // call [rbx]; nop word [rax+rax+0]
        Assemble(Epilogue).CopyTo(_code, prologue.Length + Budget);
        Assemble(a => WriteTarget(a, destroys)).CopyTo(_code, (int)(Target.Value - Base));
    }

    /// <summary>Patches the site for an operation and runs the function.</summary>
    /// <param name="operation">What the slot does.</param>
    /// <param name="allowed">What the site table says the site lets go.</param>
    /// <param name="site">What the plan did.</param>
    public SiteRun Run(Operation operation, RegisterSet allowed, out SiteDecision site)
    {
        byte[] code = [.. _code];
        var image = new CodeImage(Base, code);
        OpsLayout layout = OpsLayout.Create(b => b.Table("ops", t => t.Slot("a", convention: _convention)));
        Backend backend = Backend.Create("b", layout, b => b.Set("ops.a", operation));
        PatchPlan plan = new PatchPlanner().Plan(
            image, SiteTable.Create(new PatchSite(_site, 0, Budget, allowed)), backend, new PlanOptions { Thunks = Room });
        site = plan[0];
        plan.Apply(image);
        SiteRun run = Run(code);
        plan.Revert(image);
        Assert.Equal(_code, code);
        return run;
    }

    /// <summary>Runs the function as it is: the call goes through the table.</summary>
    public SiteRun RunUnpatched() => Run(_code);

    private unsafe SiteRun Run(byte[] code)
    {
        Requirement.That(ExecutableMemory.IsSupported, "Linux on x86-64 only");
        using ExecutableMemory memory = ExecutableMemory.Create(code);
        var note = (ulong*)NativeMemory.AllocZeroed(0x200);
        var table = (ulong*)NativeMemory.AllocZeroed(64);
        try
        {
            table[0] = memory.Address + (Target.Value - Base);
            memory.Invoke((ulong)table, (ulong)note);
            ulong[] before = [.. Enumerable.Range(0, 16).Select(i => Known(i))];
            before[3] = (ulong)table;
            before[_convention == CallConvention.WindowsX64 ? 1 : 7] = (ulong)note;
            ulong[] after = new ulong[16];
            ulong* stored = note + Stored / 8;
            for (int i = 0, next = 0; i < 16; i++)
            {
                after[i] = i == 4 ? 0 : stored[next++];
            }

            return new SiteRun(before, after, FlagsIn, stored[15], note[0] == 1, note[1]);
        }
        finally
        {
            NativeMemory.Free(note);
            NativeMemory.Free(table);
        }
    }

    private static ulong Known(int register) => 0x1111_2222_3333_0000 * (ulong)(register + 1) + (ulong)register;

    private void Prologue(Assembler a)
    {
        foreach (AssemblerRegister64 saved in (AssemblerRegister64[])[rbx, rbp, r12, r13, r14, r15, rsi])
        {
            a.push(saved);
        }

        a.lea(rsp, __[rsp - 0x20]);
        a.mov(rbx, rdi);
        a.push(FlagsIn);
        a.mov(_convention == CallConvention.WindowsX64 ? rcx : rdi, rsi);
        a.popfq();
        for (int i = 0; i < 16; i++)
        {
            if (i is not (3 or 4) && i != (_convention == CallConvention.WindowsX64 ? 1 : 7))
            {
                a.mov(new AssemblerRegister64(Register.RAX + i), Known(i));
            }
        }
    }

    private static void Epilogue(Assembler a)
    {
        a.pushfq();
        for (int i = 15; i >= 0; i--)
        {
            if (i != 4)
            {
                a.push(new AssemblerRegister64(Register.RAX + i));
            }
        }

        a.mov(rax, __[rsp + 16 * 8 + 0x20]); // the note's address, pushed as rsi
        for (int i = 0; i < 16; i++)
        {
            a.pop(__qword_ptr[rax + Stored + i * 8]);
        }

        a.cld();
        a.lea(rsp, __[rsp + 0x20]);
        foreach (AssemblerRegister64 saved in (AssemblerRegister64[])[rsi, r15, r14, r13, r12, rbp, rbx])
        {
            a.pop(saved);
        }

        a.ret();
    }

    private void WriteTarget(Assembler a, RegisterSet destroys)
    {
        AssemblerRegister64 note = _convention == CallConvention.WindowsX64 ? rcx : rdi;
        a.mov(__qword_ptr[note], 1);
        a.mov(__qword_ptr[note + 8], rsp);
        for (int i = 0; _convention == CallConvention.WindowsX64 && i < 4; i++)
        {
            a.mov(__qword_ptr[rsp + 8 + i * 8], 0xbad); // the shadow space is the callee's own
        }

        if (destroys.Contains(RegisterSet.Flags))
        {
            a.test(rsp, rsp);
            a.cld();
        }

        for (int i = 0; i < 16; i++)
        {
            if (destroys.Contains(RegisterSet.General(i)))
            {
                a.mov(new AssemblerRegister64(Register.RAX + i), i == 0 ? Result : 0xdeaddeaddeaddead);
            }
        }

        a.ret();
    }

    private static byte[] Assemble(Action<Assembler> write)
    {
        var assembler = new Assembler(64);
        write(assembler);
        var stream = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(stream), Base);
        return stream.ToArray();
    }
}
