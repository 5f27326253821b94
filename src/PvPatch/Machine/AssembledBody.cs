namespace PvPatch.Machine;

/// <summary>An inline body as bytes for one bitness, with what was found out about it. See <see cref="BodyBuilder"/>.</summary>
internal sealed class AssembledBody
{
    private readonly CodeFixup[] _fixups;

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

    /// <summary>How many instructions there are.</summary>
    public int InstructionCount { get; internal init; }

    /// <summary>Whether control never leaves at the body's end (iret, sysret, jmp).</summary>
    public bool EndsControlFlow { get; internal init; }
}
