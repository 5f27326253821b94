using System.Globalization;
using System.Numerics;
using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Live;

/// <summary>A word that every executor has one of. See <see cref="ExecutorWords"/>.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Size">Bytes: 1, 2, 4 or 8.</param>
public readonly record struct ExecutorWord(string Name, int Size = sizeof(long));

/// <summary>
/// State that each executor has of its own and generated code reaches in one instruction: interrupts enabled or not, what is pending,
/// counters. The layout of the words, and how they are addressed: behind the gs base, which <see cref="Executor.Enter"/> sets, or behind a
/// register that the host names and loads with <see cref="Executor.WordsAddress"/> on its way in.
/// </summary>
/// <remarks>
/// <code>
/// gs base, or the register
///  |
///  v
/// +--------------------+--------+--------+---
/// | safepoint counter  | word 0 | word 1 | ...     each at a multiple of its size
/// +--------------------+--------+--------+---
/// 0                    8
///
/// 65 66 c7 04 25 08 00 00 00 00 00   mov word gs:[8],0       11 bytes, as lguest's cli
/// 66 41 c7 46 08 00 00               mov word [r14+8],0       7 bytes
/// </code>
/// While a thread is inside, its gs base is the executor's, in helpers that the code calls too; <see cref="Executor.Leave"/> gives back
/// what was there before. .NET on Linux uses fs for its own, and nothing uses gs.
/// </remarks>
public sealed class ExecutorWords
{
    /// <summary>The most bytes that the words of an executor take, the safepoint counter included.</summary>
    public const int MaxLength = 4096;

    private readonly Dictionary<ExecutorWord, int> _offsets = [];

    /// <summary>Lays words out.</summary>
    /// <param name="arena">The arena whose executors have them.</param>
    /// <param name="words">The words, in this order; names differ.</param>
    /// <param name="register">
    /// The register behind which they are, any but rsp; <see langword="null"/> for the gs base. See <see cref="CodeArena.CanSetGsBase"/>.
    /// </param>
    /// <exception cref="PatchException">The gs base can't be set here (PV8008).</exception>
    /// <exception cref="ArgumentException">
    /// A word has no name, another's name or no size that there is, there are too many, or the register is rsp.
    /// </exception>
    public ExecutorWords(CodeArena arena, IReadOnlyList<ExecutorWord> words, AssemblerRegister64? register = null)
    {
        ArgumentNullException.ThrowIfNull(arena);
        ArgumentNullException.ThrowIfNull(words);
        if (register is null && !arena.CanSetGsBase)
        {
            throw new PatchException(PatchDiagnostic.Error(DiagnosticCodes.NoGsBase, "executors can't have their words behind the gs base") with
            {
                Found = OperatingSystem.IsWindows() ? "Windows, which keeps its own there" : "a processor or a kernel without FSGSBASE",
                Expected = "Linux 5.9 or later on a processor with FSGSBASE (AT_HWCAP2, bit 1)",
                Help = "Name a register that generated code leaves alone, and load it with Executor.WordsAddress on the way in.",
            });
        }

        if (register == rsp)
        {
            throw new ArgumentException("rsp moves: words can't be behind it", nameof(register));
        }

        Arena = arena;
        Register = register;
        Length = sizeof(long);
        foreach (ExecutorWord word in words)
        {
            Add(word);
        }
    }

    /// <summary>The arena.</summary>
    public CodeArena Arena { get; }

    /// <summary>The register behind which the words are; <see langword="null"/> for the gs base.</summary>
    public AssemblerRegister64? Register { get; }

    /// <summary>Bytes of an executor's words, the safepoint counter included.</summary>
    public int Length { get; private set; }

    /// <summary>
    /// The safepoint counter of the executor that runs, for an instruction: generated code may add 2 to it where it is inside no site and no
    /// body. See <see cref="Executor.CounterAddress"/>.
    /// </summary>
    public AssemblerMemoryOperand SafepointCounter => At(__qword_ptr, 0);

    /// <summary>A word of the executor that runs, for an instruction: <c>gs:[offset]</c> or <c>[register+offset]</c>, of the word's size.</summary>
    /// <param name="word">One of the words.</param>
    /// <returns>The operand.</returns>
    /// <exception cref="ArgumentException">It is none of the words.</exception>
    public AssemblerMemoryOperand Operand(ExecutorWord word) => At(
        word.Size switch
        {
            sizeof(byte) => __byte_ptr,
            sizeof(short) => __word_ptr,
            sizeof(int) => __dword_ptr,
            _ => __qword_ptr,
        },
        OffsetOf(word));

    /// <summary>Where a word is, in bytes from <see cref="Executor.WordsAddress"/>.</summary>
    /// <param name="word">One of the words.</param>
    /// <returns>The offset, a multiple of the word's size.</returns>
    /// <exception cref="ArgumentException">It is none of the words.</exception>
    public int OffsetOf(ExecutorWord word) => _offsets.TryGetValue(word, out int offset)
        ? offset
        : throw new ArgumentException($"the executors have no word {word.Name} of {word.Size} bytes", nameof(word));

    private AssemblerMemoryOperand At(AssemblerMemoryOperandFactory size, int offset) =>
        Register is AssemblerRegister64 register ? size[register + offset] : size.gs[offset];

    private void Add(ExecutorWord word)
    {
        if (string.IsNullOrEmpty(word.Name) || word.Size is < 1 or > sizeof(long) || !BitOperations.IsPow2(word.Size))
        {
            throw new ArgumentException($"a word has a name and 1, 2, 4 or 8 bytes, not \"{word.Name}\" and {word.Size}", nameof(word));
        }

        if (_offsets.Keys.Any(w => w.Name == word.Name))
        {
            throw new ArgumentException($"there are two words {word.Name}", nameof(word));
        }

        int offset = Length + word.Size - 1 & -word.Size;
        Length = offset + word.Size <= MaxLength
            ? offset + word.Size
            : throw new ArgumentException(
                string.Create(CultureInfo.InvariantCulture, $"the words take more than {MaxLength} bytes"), nameof(word));
        _offsets.Add(word, offset);
    }
}
