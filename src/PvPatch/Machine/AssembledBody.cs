namespace PvPatch.Machine;

/// <summary>An inline body as bytes for one bitness, with what was found out about it. See <see cref="BodyBuilder"/>.</summary>
internal sealed class AssembledBody
{
    private readonly CodeFixup[] _fixups;

    /// <summary>Templates by length, whatever nops each has. Threads may take away each other's: what is not there is made again.</summary>
    private CodeTemplate?[] _templates = [];

    internal AssembledBody(byte[] bytes, CodeFixup[] fixups, int bitness)
    {
        Bytes = bytes;
        _fixups = fixups;
        Bitness = bitness;
    }

    /// <summary>The bytes; the fields of <see cref="Fixups"/> are zero.</summary>
    public ReadOnlyMemory<byte> Bytes { get; }

    /// <summary>The fields that depend on the site's address.</summary>
    public IReadOnlyList<CodeFixup> Fixups => _fixups;

    internal ReadOnlySpan<CodeFixup> FixupSpan => _fixups;

    /// <summary>32 or 64.</summary>
    public int Bitness { get; }

    /// <summary>Registers and flags that are different afterwards, as far as the instructions say: results are in it too. Empty where control does not come back.</summary>
    public RegisterSet Destroys { get; internal init; }

    /// <summary>Whether an instruction pushes, pops, calls or addresses memory through the stack pointer.</summary>
    public bool UsesStack { get; internal init; }

    /// <summary>Whether some instruction calls or jumps through memory.</summary>
    public bool HasIndirectBranch { get; internal init; }

    /// <summary>How many instructions there are.</summary>
    public int InstructionCount { get; internal init; }

    /// <summary>Whether control never leaves at the body's end (iret, sysret, jmp).</summary>
    public bool EndsControlFlow { get; internal init; }

    /// <summary>The body with nops behind it, kept for the next who asks.</summary>
    /// <param name="budget">The site's length in bytes, at least the body's.</param>
    /// <param name="nops">Which nops.</param>
    public CodeTemplate InBudget(int budget, NopStyle nops)
    {
        CodeTemplate?[] templates = _templates;
        return budget < templates.Length && templates[budget] is CodeTemplate known && ReferenceEquals(known.Nops, nops) ? known : Keep(CodeTemplate.Create(this, budget, nops));
    }

    private CodeTemplate Keep(CodeTemplate template)
    {
        CodeTemplate?[] templates = _templates;
        int budget = template.Bytes.Length;
        if (budget >= templates.Length)
        {
            Array.Resize(ref templates, Math.Max(SiteBytes.MaxLength, budget) + 1);
            _templates = templates;
        }

        templates[budget] = template;
        return template;
    }
}
