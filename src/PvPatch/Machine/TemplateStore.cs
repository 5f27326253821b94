using System.Collections.Concurrent;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Machine;

/// <summary>What a planner has assembled so far: every template goes through Iced once.</summary>
internal sealed class TemplateStore
{
    // A host that makes new backends for ever must not make the store grow for ever.
    private const int Limit = 1 << 13;

    private readonly ConcurrentDictionary<(InlineBody Body, CallConvention Convention, int Bitness), AssembledBody> _bodies = new();
    private readonly ConcurrentDictionary<(Mnemonic Instruction, ulong Detail, int Bitness), AssembledBody> _standard = new();

    public AssembledBody Body(InlineBody body, CallConvention convention, int bitness)
    {
        if (_bodies.TryGetValue((body, convention, bitness), out AssembledBody? known))
        {
            return known;
        }

        DropWhereFull();
        return _bodies.GetOrAdd((body, convention, bitness), Build(body, convention, bitness));
    }

    /// <summary>A body of one instruction.</summary>
    /// <param name="instruction">The instruction, and of it what <paramref name="write"/> asks: the target of a branch.</param>
    /// <param name="detail">What tells instructions of one mnemonic apart.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="write">Writes it, of that detail.</param>
    public AssembledBody Standard(Mnemonic instruction, ulong detail, int bitness, Action<Assembler, ulong> write) =>
        _standard.TryGetValue((instruction, detail, bitness), out AssembledBody? known) ? known : NewStandard(instruction, detail, bitness, write);

    private AssembledBody NewStandard(Mnemonic instruction, ulong detail, int bitness, Action<Assembler, ulong> write)
    {
        DropWhereFull();
        // What such a body destroys is not asked for (a call's is the target's), so any convention will do.
        return _standard.GetOrAdd((instruction, detail, bitness), Build(InlineBody.Create(a => write(a, detail)), CallConvention.SysV, bitness));
    }

    private static AssembledBody Build(InlineBody body, CallConvention convention, int bitness) =>
        BodyBuilder.TryBuild(body, convention, bitness, out AssembledBody? built, out PatchDiagnostic? error) ? built : throw new PatchException(error);

    private void DropWhereFull()
    {
        if (_bodies.Count + _standard.Count > Limit)
        {
            _bodies.Clear();
            _standard.Clear();
        }
    }
}

/// <summary>The store as one plan sees it: for one bitness and one nop style.</summary>
internal sealed class TemplateCache
{
    private readonly TemplateStore _store;
    private readonly int _bitness;
    private readonly NopStyle _nops;

    public TemplateCache(TemplateStore store, int bitness, NopStyle nops)
    {
        nops.ThrowUnlessSupported(bitness);
        _store = store;
        _bitness = bitness;
        _nops = nops;
    }

    public AssembledBody Body(InlineBody body, CallConvention convention) => _store.Body(body, convention, _bitness);

    public CodeTemplate Inline(InlineBody body, CallConvention convention, int budget) => Body(body, convention).InBudget(budget, _nops);

    public CodeTemplate Nops(int budget) => Inline(InlineBody.Nothing, default, budget);

    public CodeTemplate Call(VirtualAddress target, int budget) =>
        _store.Standard(Mnemonic.Call, target.Value, _bitness, static (a, to) => a.call(to)).InBudget(budget, _nops);

    public CodeTemplate Jump(VirtualAddress target, int budget) =>
        _store.Standard(Mnemonic.Jmp, target.Value, _bitness, static (a, to) => a.jmp(to)).InBudget(budget, _nops);

    public CodeTemplate Trap(int budget) =>
        _store.Standard(Mnemonic.Ud2, 0, _bitness, static (a, _) => a.ud2()).InBudget(budget, _nops); // 0f 0b

    /// <summary>
    /// mov eax,edi (89 f8) or mov rax,rdi (48 89 f8) for System V, with ecx/rcx (89 c8, 48 89 c8) for Windows. The 32-bit move
    /// clears the upper half, as a 32-bit result may. Store form (89), as the kernel's assembler chose it.
    /// </summary>
    public AssembledBody IdentityBody(RegisterSet argument, bool wide) =>
        _store.Standard(Mnemonic.Mov, (argument == RegisterSet.Rcx ? 2u : 0) | (wide ? 1u : 0), _bitness, static (a, which) =>
        {
            bool windows = (which & 2) != 0;
            if ((which & 1) != 0)
            {
                a.mov(rax, windows ? rcx : rdi);
            }
            else
            {
                a.mov(eax, windows ? ecx : edi);
            }
        });

    public CodeTemplate Identity(RegisterSet argument, bool wide, int budget) => IdentityBody(argument, wide).InBudget(budget, _nops);
}
