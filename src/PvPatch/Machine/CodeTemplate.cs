using Iced.Intel;

namespace PvPatch.Machine;

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

    /// <summary>What the body destroys.</summary>
    public RegisterSet Destroys { get; private init; }

    /// <summary>Whether the body uses the stack.</summary>
    public bool UsesStack { get; private init; }

    /// <summary>Whether the whole budget is one instruction, so that it can be put in place while another thread runs the code.</summary>
    public bool IsSingleInstruction { get; private init; }

    /// <summary>Whether some instruction calls or jumps through memory, as what stands at sites before they are patched.</summary>
    public bool HasIndirectBranch { get; private init; }

    internal ReadOnlySpan<CodeFixup> FixupSpan => _fixups;

    /// <summary>A body in a budget.</summary>
    /// <param name="body">The body.</param>
    /// <param name="budget">The site's length in bytes, at least the body's.</param>
    /// <param name="nops">What to put behind the body. Behind, because an interrupt shadow (sti) must cover a nop, not the code that follows the site.</param>
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
        return new CodeTemplate(bytes, [.. body.Fixups], nops, body.Bitness, length)
        {
            Destroys = body.Destroys,
            UsesStack = body.UsesStack,
            HasIndirectBranch = body.HasIndirectBranch,
            IsSingleInstruction = length == budget ? body.InstructionCount == 1 : length == 0 && IsOneInstruction(bytes, body.Bitness),
        };
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

    private static bool IsOneInstruction(byte[] bytes, int bitness)
    {
        var decoder = Decoder.Create(bitness, bytes);
        decoder.Decode(out Instruction instruction);
        return !instruction.IsInvalid && instruction.Length == bytes.Length;
    }
}
