using Iced.Intel;

namespace PvPatch.Machine;

/// <summary>
/// The instructions that stand for an operation at its sites. Either written with Iced's assembler or given as finished bytes; what
/// they destroy, whether they use the stack and where they refer to addresses is found out from the instructions themselves.
/// </summary>
public sealed class InlineBody
{
    private readonly Action<Assembler>? _write;
    private readonly Action<Assembler, CallConvention>? _writeFor;

    private InlineBody(
        Action<Assembler>? write, Action<Assembler, CallConvention>? writeFor, ReadOnlyMemory<byte> code, VirtualAddress origin,
        RegisterSet? calls)
    {
        _write = write;
        _writeFor = writeFor;
        Code = code;
        Origin = origin;
        DestroyedByCalls = calls;
    }

    /// <summary>
    /// What calls inside the body may destroy. <see langword="null"/> means: as much as a function of the slot's own convention.
    /// Only the callee can know this, so it is the one thing about a body that is said and not computed.
    /// </summary>
    public RegisterSet? DestroyedByCalls { get; }

    /// <summary>
    /// No instruction at all: the backend's own patch function turns the site into nops, whatever the slot holds and whether or not its
    /// kernel has a default rule (VMI in 2.6.21 does so where the ROM answers that nothing is to be done).
    /// </summary>
    internal static InlineBody Nothing { get; } = new(null, null, ReadOnlyMemory<byte>.Empty, default, null);

    internal ReadOnlyMemory<byte> Code { get; }

    internal VirtualAddress Origin { get; }

    /// <summary>Makes a body of assembler calls.</summary>
    /// <param name="write">
    /// Writes the instructions. It is called up to four times for each bitness a template is built for, so it must write the same each
    /// time. Branches, calls and RIP-relative operands take absolute addresses; labels may be used within the body (one at its end wants a
    /// <c>zero_bytes()</c> behind it). Nothing is enlarged: an instruction that can't reach is an error, not a longer sequence.
    /// </param>
    /// <param name="destroyedByCalls">What calls inside the body may destroy, where it is less than the slot's convention allows.</param>
    /// <returns>The body.</returns>
    public static InlineBody Create(Action<Assembler> write, RegisterSet? destroyedByCalls = null)
    {
        ArgumentNullException.ThrowIfNull(write);
        return new InlineBody(write, null, default, default, destroyedByCalls);
    }

    /// <summary>
    /// Makes a body of assembler calls that is written for the registers in which each site has its operands: those of the slot's
    /// convention, or of the site's own (<see cref="Live.SiteEmitter"/>, <c>convention</c>).
    /// </summary>
    /// <param name="write">
    /// Writes the instructions, as in the other form, with the operands in <see cref="CallConvention.ArgumentRegister"/> and the result in
    /// <see cref="CallConvention.ResultRegister"/>.
    /// </param>
    /// <param name="destroyedByCalls">What calls inside the body may destroy, where it is less than the slot's convention allows.</param>
    /// <returns>The body.</returns>
    public static InlineBody Create(Action<Assembler, CallConvention> write, RegisterSet? destroyedByCalls = null)
    {
        ArgumentNullException.ThrowIfNull(write);
        return new InlineBody(null, write, default, default, destroyedByCalls);
    }

    /// <summary>Makes a body of finished bytes.</summary>
    /// <param name="code">Whole instructions; copied.</param>
    /// <param name="origin">
    /// The run address the bytes were made for: branches and RIP-relative operands that leave them are moved to each site.
    /// </param>
    /// <param name="destroyedByCalls">What calls inside the body may destroy, where it is less than the slot's convention allows.</param>
    /// <returns>The body.</returns>
    public static InlineBody FromBytes(ReadOnlySpan<byte> code, VirtualAddress origin = default, RegisterSet? destroyedByCalls = null)
    {
        if (code.IsEmpty)
        {
            throw new ArgumentException("a body has at least one byte; an operation without effect is a nop", nameof(code));
        }

        return new InlineBody(null, null, code.ToArray(), origin, destroyedByCalls);
    }

    /// <summary>What writes the body for a convention; nothing where it is finished bytes.</summary>
    internal Action<Assembler>? WriterFor(CallConvention convention) =>
        _writeFor is null ? _write : a => _writeFor(a, convention);
}
