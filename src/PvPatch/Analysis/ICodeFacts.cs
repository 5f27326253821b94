using PvPatch.Machine;

namespace PvPatch.Analysis;

/// <summary>
/// What a host knows of code beyond its bytes. All of it is optional: what is not known is taken at its worst, so a result without facts
/// says less and is as true. What is stated is believed where the member says so.
/// </summary>
public interface ICodeFacts
{
    /// <summary>
    /// The convention the code was compiled for; <see langword="null"/> for code of which nothing is known. Believed: a call keeps what the
    /// convention keeps (functions followed that cannot be shown to are in <see cref="CodeAnalyzer.Unconventional"/>), what a called
    /// function may destroy is not read after the call, flags are not passed to functions, those that are pushed are pushed for the
    /// interrupt flag, the direction flag is clear, and stores through computed addresses miss the words in which registers are saved.
    /// </summary>
    public CallConvention? Convention => null;

    /// <summary>
    /// What is known of the function that begins at an address; <see langword="null"/> where none is known to begin there.
    /// </summary>
    /// <param name="address">Run address.</param>
    /// <returns>
    /// The facts. That a function begins there is not believed: it only makes jumps to it tail calls where the stack allows it.
    /// </returns>
    public FunctionFacts? FunctionAt(VirtualAddress address) => null;

    /// <summary>What is known of the function that an indirect call or jump leads to.</summary>
    /// <param name="instruction">Run address of the call or jump.</param>
    /// <returns>The facts, which are believed; <see langword="null"/> where nothing is known.</returns>
    public FunctionFacts? CalledFrom(VirtualAddress instruction) => null;

    /// <summary>
    /// Where control may go instead of executing an instruction: a fix-up for its fault, the other state of a static key, a replacement of
    /// it.
    /// </summary>
    /// <param name="instruction">Run address of the instruction.</param>
    /// <returns>
    /// Run addresses; empty where there are none. Believed to be all, but for faults and traps whose handlers come back with all registers
    /// kept.
    /// </returns>
    public IReadOnlyList<VirtualAddress> EdgesOf(VirtualAddress instruction) => [];

    /// <summary>Where control goes after an instruction that does not branch.</summary>
    /// <param name="instruction">Run address of the instruction.</param>
    /// <param name="following">Run address of the byte behind it.</param>
    /// <returns><paramref name="following"/>, or where a replacement that ends here goes on. Believed.</returns>
    public VirtualAddress NextOf(VirtualAddress instruction, VirtualAddress following) => following;

    /// <summary>Where control goes on after an undefined instruction (ud2). Believed.</summary>
    /// <param name="instruction">Run address of the instruction.</param>
    /// <param name="following">Run address of the byte behind it.</param>
    /// <returns>
    /// <paramref name="following"/> by default, as a handler may go on there; <see langword="null"/> where it does not come back.
    /// </returns>
    public VirtualAddress? AfterTrap(VirtualAddress instruction, VirtualAddress following) => following;

    /// <summary>The number of arguments that a call of a function with variable arguments passes beyond the fixed ones. Believed.</summary>
    /// <param name="callee">Run address of the function.</param>
    /// <param name="fixedCount">The number of its fixed arguments.</param>
    /// <param name="lastFixed">The last fixed argument (a format, say) where it is a constant.</param>
    /// <returns>The number; <see langword="null"/> where it is not known.</returns>
    public int? VariableArguments(VirtualAddress callee, int fixedCount, VirtualAddress? lastFixed) => null;
}

/// <summary>What calling a function, or jumping to it, amounts to.</summary>
public enum FunctionRole
{
    /// <summary>An ordinary function.</summary>
    Ordinary,

    /// <summary>A jump to it is a return.</summary>
    Return,

    /// <summary>A call or jump of it goes on through a register, <see cref="FunctionFacts.Reads"/>.</summary>
    Indirect,
}

/// <summary>What a host knows of one function.</summary>
public sealed record FunctionFacts
{
    /// <summary>A function of which only the address is known.</summary>
    public static FunctionFacts Plain { get; } = new();

    /// <summary>What calling it amounts to.</summary>
    public FunctionRole Role { get; init; }

    /// <summary>What it may destroy, believed instead of reading its code; <see langword="null"/> to read the code.</summary>
    public RegisterSet? Destroys { get; init; }

    /// <summary>
    /// The registers it reads its fixed arguments from: what its code reads besides, it reads on ways that are never gone. Believed where
    /// the code's convention is known, or <see cref="Destroys"/> is given. <see langword="null"/> where that is not known. Of an indirect
    /// call or jump, the register it goes through.
    /// </summary>
    public RegisterSet? Reads { get; init; }
}
