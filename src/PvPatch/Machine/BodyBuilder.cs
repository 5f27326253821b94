using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text;
using Iced.Intel;

namespace PvPatch.Machine;

/// <summary>
/// Assembles an <see cref="InlineBody"/> and reads the result back to learn what it destroys and which fields depend on its place.
/// </summary>
internal static class BodyBuilder
{
    /// <summary>The longest body: the longest budget a site can have.</summary>
    public const int MaxLength = 254;

    /// <summary>Assembles a body.</summary>
    /// <param name="body">The body.</param>
    /// <param name="convention">The slot's convention, for calls inside the body.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="assembled">The bytes and what is known of them.</param>
    /// <param name="error">
    /// PV2005: an operand does not encode, a short branch leaves the body, the stack pointer is left moved, or the body is empty or too
    /// long.
    /// </param>
    /// <returns>Whether the body was assembled.</returns>
    public static bool TryBuild(
        InlineBody body,
        CallConvention convention,
        int bitness,
        [NotNullWhen(true)] out AssembledBody? assembled,
        [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        ArgumentNullException.ThrowIfNull(body);
        assembled = null;
        byte[] code;
        VirtualAddress origin;
        if (body.Write is null)
        {
            (code, origin) = (body.Code.ToArray(), body.Origin);
        }
        else if (!TryAssemble(body.Write, bitness, out code!, out origin, out string? reason))
        {
            error = Invalid(reason);
            return false;
        }

        if (code.Length > MaxLength || (code.Length == 0 && body != InlineBody.Nothing))
        {
            error = Invalid($"it has {code.Length} bytes; 1 to {MaxLength} are possible");
            return false;
        }

        var reader = new BodyReader(body.DestroyedByCalls ?? convention.DestroyedBy(bitness), bitness);
        assembled = reader.Read(code, origin, out string? wrong);
        error = assembled is null ? Invalid(wrong!) with { Found = HexBytes.Format(code) } : null;
        return assembled is not null;
    }

    private static bool TryAssemble(
        Action<Assembler> write, int bitness, [NotNullWhen(true)] out byte[]? code, out VirtualAddress origin,
        [NotNullWhen(false)] out string? reason)
    {
        // Short branches first: within a body every branch is short. A branch to an address outside cannot be (the place is kept
        // away from it), and then all of them are tried as near ones. Iced must not mend anything: it would enlarge the body.
        code = null;
        origin = default;
        reason = "";
        foreach (bool preferShort in (ReadOnlySpan<bool>)[true, false])
        {
            if (!WrittenBody.TryRead(write, bitness, preferShort, out WrittenBody? body, out reason))
            {
                return false;
            }

            if (body.TryEncode(out code, out origin, out reason))
            {
                return true;
            }
        }

        return false;
    }

    internal static bool IsNearBranch(in Instruction instruction) =>
        instruction.Op0Kind is OpKind.NearBranch16 or OpKind.NearBranch32 or OpKind.NearBranch64;

    /// <summary>The address or label an instruction names by its distance: of a near branch or of an operand relative to RIP.</summary>
    internal static ulong? RelativeTarget(in Instruction instruction) =>
        IsNearBranch(instruction) ? instruction.NearBranchTarget
        : instruction.IsIPRelativeMemoryOperand ? instruction.IPRelativeMemoryAddress
        : null;

    private static PatchDiagnostic Invalid(string reason) =>
        PatchDiagnostic.Error(DiagnosticCodes.BodyInvalid, $"an inline body cannot be used: {reason}");
}

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

    /// <summary>
    /// Registers and flags that are different afterwards, as far as the instructions say: results are in it too. Empty where control does
    /// not come back.
    /// </summary>
    public RegisterSet Destroys { get; internal init; }

    /// <summary>
    /// General registers whose value before the body some instruction may see: also those that the body itself sets first. All where other
    /// code runs before the body's end.
    /// </summary>
    public RegisterSet Reads { get; internal init; }

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
        return budget < templates.Length && templates[budget] is CodeTemplate known && ReferenceEquals(known.Nops, nops)
            ? known : Keep(CodeTemplate.Create(this, budget, nops));
    }

    /// <summary>Writes the body as it is, without nops.</summary>
    /// <param name="address">Run address of its first byte.</param>
    /// <param name="destination">Where to; at least as long.</param>
    /// <returns>Whether everything it refers to is in reach.</returns>
    public bool TryWrite(VirtualAddress address, Span<byte> destination)
    {
        Bytes.Span.CopyTo(destination);
        return Displacement.TryFill(destination, _fixups, address, Bitness);
    }

    /// <summary>What two bodies that are written alike at every address have in common: their bytes and what these refer to.</summary>
    public string ContentKey()
    {
        var key = new StringBuilder(Convert.ToHexString(Bytes.Span));
        foreach (CodeFixup fixup in _fixups)
        {
            key.Append(CultureInfo.InvariantCulture, $" {fixup.Offset}:{fixup.Target}");
        }

        return key.ToString();
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
