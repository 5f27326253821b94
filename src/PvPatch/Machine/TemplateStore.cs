using System.Collections.Concurrent;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Machine;

/// <summary>What a planner has assembled so far: every template goes through Iced once.</summary>
internal sealed class TemplateStore
{
    // A host that makes new backends for ever must not make the store grow for ever.
    private const int Limit = 1 << 14;

    private readonly ConcurrentDictionary<(InlineBody Body, CallConvention Convention, int Bitness), AssembledBody> _bodies = new();
    private readonly ConcurrentDictionary<(object Body, CallConvention Convention, int Budget, int Bitness, NopStyle Nops), CodeTemplate> _templates = new();
    private readonly ConcurrentDictionary<(Form Form, ulong Detail), InlineBody> _standard = new();

    public enum Form
    {
        Call,
        Jump,
        Trap,
        Identity,
    }

    public AssembledBody Body(InlineBody body, CallConvention convention, int bitness)
    {
        if (_bodies.TryGetValue((body, convention, bitness), out AssembledBody? known))
        {
            return known;
        }

        if (!BodyBuilder.TryBuild(body, convention, bitness, out AssembledBody? built, out PatchDiagnostic? error))
        {
            throw new PatchException(error);
        }

        DropWhereFull();
        return _bodies.GetOrAdd((body, convention, bitness), built);
    }

    public CodeTemplate Template(InlineBody body, CallConvention convention, int budget, int bitness, NopStyle nops)
    {
        var key = ((object)body, convention, budget, bitness, nops);
        return _templates.TryGetValue(key, out CodeTemplate? known)
            ? known
            : _templates.GetOrAdd(key, CodeTemplate.Create(Body(body, convention, bitness), budget, nops));
    }

    public CodeTemplate Nops(int budget, int bitness, NopStyle nops)
    {
        var key = ((object)nops, default(CallConvention), budget, bitness, nops);
        return _templates.TryGetValue(key, out CodeTemplate? known) ? known : _templates.GetOrAdd(key, CodeTemplate.Nops(budget, nops, bitness));
    }

    public InlineBody Standard(Form form, ulong detail, Action<Assembler> write) =>
        _standard.TryGetValue((form, detail), out InlineBody? known) ? known : _standard.GetOrAdd((form, detail), InlineBody.Create(write));

    private void DropWhereFull()
    {
        if (_templates.Count > Limit || _bodies.Count > Limit || _standard.Count > Limit)
        {
            _templates.Clear();
            _bodies.Clear();
            _standard.Clear();
        }
    }
}

/// <summary>The store as one plan sees it: for one bitness and one nop style.</summary>
internal sealed class TemplateCache
{
    // The effects of these bodies are not asked for (a call's are the target's), so any convention will do.
    private const CallConvention AnyConvention = CallConvention.SysV;

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

    public CodeTemplate Inline(InlineBody body, CallConvention convention, int budget) => _store.Template(body, convention, budget, _bitness, _nops);

    public CodeTemplate Nops(int budget) => _store.Nops(budget, _bitness, _nops);

    public CodeTemplate Call(VirtualAddress target, int budget) =>
        Inline(_store.Standard(TemplateStore.Form.Call, target.Value, a => a.call(target.Value)), AnyConvention, budget);

    public CodeTemplate Jump(VirtualAddress target, int budget) =>
        Inline(_store.Standard(TemplateStore.Form.Jump, target.Value, a => a.jmp(target.Value)), AnyConvention, budget);

    public CodeTemplate Trap(int budget) =>
        Inline(_store.Standard(TemplateStore.Form.Trap, 0, static a => a.ud2()), AnyConvention, budget); // 0f 0b

    public AssembledBody IdentityBody(RegisterSet argument, bool wide) => Body(IdentityMove(argument, wide), AnyConvention);

    public CodeTemplate Identity(RegisterSet argument, bool wide, int budget) => Inline(IdentityMove(argument, wide), AnyConvention, budget);

    /// <summary>
    /// mov eax,edi (89 f8) or mov rax,rdi (48 89 f8) for System V, with ecx/rcx (89 c8, 48 89 c8) for Windows. The 32-bit move
    /// clears the upper half, as a 32-bit result may. Store form (89), as the kernel's assembler chose it.
    /// </summary>
    private InlineBody IdentityMove(RegisterSet argument, bool wide) =>
        _store.Standard(TemplateStore.Form.Identity, argument.Bits << 1 | (wide ? 1u : 0), a =>
        {
            bool windows = argument == RegisterSet.Rcx;
            if (wide)
            {
                a.mov(rax, windows ? rcx : rdi);
            }
            else
            {
                a.mov(eax, windows ? ecx : edi);
            }
        });
}
