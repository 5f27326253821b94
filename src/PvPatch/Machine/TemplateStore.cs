using System.Collections.Concurrent;
using Iced.Intel;

namespace PvPatch.Machine;

/// <summary>
/// What a planner has assembled so far for one bitness and one nop style: every body is assembled once, until the store is full.
/// </summary>
internal sealed class TemplateStore
{
    // A host that makes new backends for ever must not make the store grow for ever.
    private const int Limit = 1 << 13;

    private readonly ConcurrentDictionary<(InlineBody Body, CallConvention Convention), AssembledBody> _bodies = new();
    private readonly ConcurrentDictionary<(Mnemonic Instruction, ulong Detail), AssembledBody> _standard = new();
    private readonly int _bitness;
    private readonly NopStyle _nops;

    public TemplateStore(int bitness, NopStyle nops)
    {
        nops.ThrowUnlessSupported(bitness);
        _bitness = bitness;
        _nops = nops;
    }

    public AssembledBody Body(InlineBody body, CallConvention convention)
    {
        if (_bodies.TryGetValue((body, convention), out AssembledBody? known))
        {
            return known;
        }

        DropWhereFull();
        return _bodies.GetOrAdd((body, convention), Build(body, convention));
    }

    public CodeTemplate Inline(InlineBody body, CallConvention convention, int budget) => Body(body, convention).InBudget(budget, _nops);

    public CodeTemplate Nops(int budget) => Inline(InlineBody.Nothing, CallConvention.SysV, budget);

    public CodeTemplate Call(VirtualAddress target, int budget) =>
        Standard(Mnemonic.Call, target.Value, static (a, to) => a.call(to)).InBudget(budget, _nops);

    public CodeTemplate Jump(VirtualAddress target, int budget) =>
        Standard(Mnemonic.Jmp, target.Value, static (a, to) => a.jmp(to)).InBudget(budget, _nops);

    public CodeTemplate Trap(int budget) => Standard(Mnemonic.Ud2, 0, static (a, _) => a.ud2()).InBudget(budget, _nops); // 0f 0b

    /// <summary>
    /// The move from a convention's first argument to its result, two different registers: mov eax,edi (89 f8) or mov rax,rdi (48 89 f8)
    /// for System V. The 32-bit move clears the upper half, as a 32-bit result may. Store form (89), as the kernel's assembler chose it.
    /// </summary>
    public AssembledBody IdentityBody(CallConvention convention, bool wide)
    {
        int from = convention.ArgumentNumbers(_bitness)[0];
        ulong detail = (uint)convention.ResultNumber | (uint)from << 4 | (wide ? 256u : 0);
        return Standard(Mnemonic.Mov, detail, static (a, which) =>
        {
            Register first = (which & 256) != 0 ? Register.RAX : Register.EAX;
            a.AddInstruction(Instruction.Create(
                (which & 256) != 0 ? Code.Mov_rm64_r64 : Code.Mov_rm32_r32, first + (int)(which & 15), first + (int)(which >> 4 & 15)));
        });
    }

    public CodeTemplate Identity(CallConvention convention, bool wide, int budget) =>
        IdentityBody(convention, wide).InBudget(budget, _nops);

    /// <summary>A body of one instruction.</summary>
    /// <param name="instruction">The instruction, and of it what <paramref name="write"/> asks: the target of a branch.</param>
    /// <param name="detail">What tells instructions of one mnemonic apart.</param>
    /// <param name="write">Writes it, of that detail.</param>
    private AssembledBody Standard(Mnemonic instruction, ulong detail, Action<Assembler, ulong> write) =>
        _standard.TryGetValue((instruction, detail), out AssembledBody? known) ? known : NewStandard(instruction, detail, write);

    private AssembledBody NewStandard(Mnemonic instruction, ulong detail, Action<Assembler, ulong> write)
    {
        DropWhereFull();
        // The convention counts only for calls inside a body, and what a call's target destroys is asked of the operation.
        return _standard.GetOrAdd((instruction, detail), Build(InlineBody.Create(a => write(a, detail)), CallConvention.SysV));
    }

    private AssembledBody Build(InlineBody body, CallConvention convention) =>
        BodyBuilder.TryBuild(body, convention, _bitness, out AssembledBody? built, out PatchDiagnostic? error)
            ? built : throw new PatchException(error);

    private void DropWhereFull()
    {
        if (_bodies.Count + _standard.Count > Limit)
        {
            _bodies.Clear();
            _standard.Clear();
        }
    }
}

/// <summary>Finished bytes for a budget, but for the fields that depend on the site's address: a body and behind it nops.</summary>
internal sealed class CodeTemplate
{
    private readonly byte[] _bytes;
    private readonly CodeFixup[] _fixups;

    private CodeTemplate(byte[] bytes, CodeFixup[] fixups, NopStyle nops, int bitness, int bodyLength)
    {
        _bytes = bytes;
        _fixups = fixups;
        Nops = nops;
        Bitness = bitness;
        BodyLength = bodyLength;
    }

    /// <summary>The bytes, as many as the budget; fields of <see cref="Fixups"/> are zero.</summary>
    public ReadOnlySpan<byte> Bytes => _bytes;

    /// <summary>The fields that depend on the site's address.</summary>
    public IReadOnlyList<CodeFixup> Fixups => _fixups;

    /// <summary>What stands behind the body.</summary>
    public NopStyle Nops { get; }

    /// <summary>32 or 64.</summary>
    public int Bitness { get; }

    /// <summary>Length of the body in bytes; what follows is nops.</summary>
    public int BodyLength { get; }

    /// <summary>Whether some instruction calls or jumps through memory, as what stands at sites before they are patched.</summary>
    public bool HasIndirectBranch { get; private init; }

    internal ReadOnlySpan<CodeFixup> FixupSpan => _fixups;

    /// <summary>A body in a budget.</summary>
    /// <param name="body">The body.</param>
    /// <param name="budget">The site's length in bytes, at least the body's.</param>
    /// <param name="nops">
    /// What to put behind the body. Behind, because an interrupt shadow (sti) must cover a nop, not the code that follows the site.
    /// </param>
    /// <returns>The template.</returns>
    public static CodeTemplate Create(AssembledBody body, int budget, NopStyle nops)
    {
        ArgumentNullException.ThrowIfNull(body);
        ArgumentNullException.ThrowIfNull(nops);
        int length = body.Bytes.Length;
        ArgumentOutOfRangeException.ThrowIfLessThan(budget, length);
        nops.ThrowUnlessSupported(body.Bitness);
        byte[] bytes = new byte[budget];
        body.Bytes.Span.CopyTo(bytes);
        nops.Fill(bytes.AsSpan(length));
        return new CodeTemplate(bytes, [.. body.Fixups], nops, body.Bitness, length) { HasIndirectBranch = body.HasIndirectBranch };
    }

    /// <summary>Writes the bytes for one site.</summary>
    /// <param name="site">Run address of the site's first byte.</param>
    /// <param name="destination">Where to; as long as the budget. Holds nothing useful where the result is <see langword="false"/>.</param>
    /// <returns>Whether every target is in reach of the site.</returns>
    public bool TryWrite(VirtualAddress site, Span<byte> destination)
    {
        _bytes.CopyTo(destination);
        return Displacement.TryFill(destination, _fixups, site, Bitness);
    }
}
