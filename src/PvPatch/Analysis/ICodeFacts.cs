using PvPatch.Machine;

namespace PvPatch.Analysis;

/// <summary>
/// What a host knows of code beyond its bytes. All of it is optional: what is not known is taken at its worst, so a result without facts says less and
/// is as true. What is stated is believed where the member says so.
/// </summary>
public interface ICodeFacts
{
    /// <summary>
    /// The convention the code was compiled for; <see langword="null"/> for code of which nothing is known. Believed: a call keeps what the convention
    /// keeps (functions followed that cannot be shown to are in <see cref="CodeAnalyzer.Unconventional"/>), what a called function may destroy is not
    /// read after the call, and stores through computed addresses miss the words in which registers are saved.
    /// </summary>
    CallConvention? Convention => null;

    /// <summary>What is known of the function that begins at an address; <see langword="null"/> where none is known to begin there.</summary>
    /// <param name="address">Run address.</param>
    /// <returns>The facts. That a function begins there is not believed: it only makes jumps to it tail calls where the stack allows it.</returns>
    FunctionFacts? FunctionAt(VirtualAddress address) => null;

    /// <summary>What is known of the function that an indirect call or jump leads to.</summary>
    /// <param name="instruction">Run address of the call or jump.</param>
    /// <returns>The facts, which are believed; <see langword="null"/> where nothing is known.</returns>
    FunctionFacts? CalledFrom(VirtualAddress instruction) => null;

    /// <summary>Where control may go instead of executing an instruction: a fix-up for its fault, the other state of a static key, a replacement of it.</summary>
    /// <param name="instruction">Run address of the instruction.</param>
    /// <returns>Run addresses; empty where there are none. Believed to be all, but for faults and traps whose handlers come back with all registers kept.</returns>
    IReadOnlyList<VirtualAddress> EdgesOf(VirtualAddress instruction) => [];

    /// <summary>Where control goes after an instruction that does not branch.</summary>
    /// <param name="instruction">Run address of the instruction.</param>
    /// <param name="next">Run address of the byte behind it.</param>
    /// <returns><paramref name="next"/>, or where a replacement that ends here goes on. Believed.</returns>
    VirtualAddress NextOf(VirtualAddress instruction, VirtualAddress next) => next;

    /// <summary>Where control goes on after an undefined instruction (ud2). Believed.</summary>
    /// <param name="instruction">Run address of the instruction.</param>
    /// <param name="next">Run address of the byte behind it.</param>
    /// <returns><paramref name="next"/> by default, as a handler may go on there; <see langword="null"/> where it does not come back.</returns>
    VirtualAddress? AfterTrap(VirtualAddress instruction, VirtualAddress next) => next;

    /// <summary>The number of arguments that a call of a function with variable arguments passes beyond the fixed ones. Believed.</summary>
    /// <param name="function">Run address of the function.</param>
    /// <param name="fixedCount">The number of its fixed arguments.</param>
    /// <param name="lastFixed">The last fixed argument (a format, say) where it is a constant.</param>
    /// <returns>The number; <see langword="null"/> where it is not known.</returns>
    int? VariableArguments(VirtualAddress function, int fixedCount, VirtualAddress? lastFixed) => null;
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

    /// <summary>What it may destroy, believed instead of reading its code; <see langword="null"/> to read the code. Needs <see cref="Reads"/>.</summary>
    public RegisterSet? Destroys { get; init; }

    /// <summary>
    /// The registers it reads its arguments from, where <see cref="Destroys"/> is given; <see langword="null"/> for all that an unknown function may read.
    /// Of an indirect call or jump, the register it goes through.
    /// </summary>
    public RegisterSet? Reads { get; init; }
}
