using PvPatch.Images;
using PvPatch.Machine;

namespace PvPatch.Analysis;

/// <summary>
/// Computes what the code of an image destroys and what is live in it. Code is read when control first comes to it, and what was found of a
/// function is kept, so the second question costs less than the first.
/// </summary>
/// <remarks>
/// <para>
/// Taken for granted of all code: a function is entered by a call with its return address on top of the stack, that address changes by
/// stores that are seen to hit it alone, fixed addresses are not on the stack, faults come back with all registers kept where
/// <see cref="ICodeFacts.EdgesOf"/> says nothing, and the bytes do not change.
/// </para>
/// <para>Not safe for use from several threads at once. The image is only read.</para>
/// </remarks>
public sealed class CodeAnalyzer
{
    /// <summary>The work allowed where nothing else is said: about ten times what a distribution's whole kernel takes.</summary>
    public const long DefaultWork = 200_000_000;

    private readonly Convention _convention;
    private readonly WorkLimit _limit;
    private readonly EffectsSolver _effects;
    private readonly LivenessSolver _liveness;

    /// <summary>Makes an analyzer.</summary>
    /// <param name="image">The code.</param>
    /// <param name="facts">What is known beyond its bytes; nothing where <see langword="null"/>.</param>
    /// <param name="work">
    /// The instructions it may walk in its life, each counted as often as it is walked. What it would take more for is undecided.
    /// </param>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="work"/> is not positive.</exception>
    public CodeAnalyzer(CodeImage image, ICodeFacts? facts = null, long work = DefaultWork)
    {
        ArgumentNullException.ThrowIfNull(image);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(work);
        facts ??= new NoFacts();
        _convention = new Convention(facts.Convention, image.Bitness);
        _limit = new WorkLimit(work);
        _effects = new EffectsSolver(new StepStore(image, facts), facts, _convention, _limit, image.Bitness / 8);
        _liveness = new LivenessSolver(_effects.Steps, facts, _convention, _limit, image.Bitness / 8);
    }

    /// <summary>The number of instructions read so far.</summary>
    public int InstructionCount => _effects.Steps.Count;

    /// <summary>
    /// Functions followed so far that cannot be shown to keep what <see cref="ICodeFacts.Convention"/> says they keep, in order of address.
    /// Their callers are judged as if they did.
    /// </summary>
    public IReadOnlyList<FunctionEffects> Unconventional =>
        [.. _effects.Functions.Where(f => _convention.IsKnown && f.IsSettled && f.Returns && (f.Destroys & _convention.Kept) != 0)
            .OrderBy(static f => f.Entry).Select(static f => new FunctionEffects(f))];

    /// <summary>What code does from an address on, called as a function.</summary>
    /// <param name="address">Run address of the first instruction.</param>
    /// <returns>The effects. Of an address outside the image nothing is known.</returns>
    public FunctionEffects EffectsOf(VirtualAddress address) => new(_effects.Solve(address.Value));

    /// <summary>The lowest instruction of a function itself, not of those it calls, that writes some registers.</summary>
    internal VirtualAddress? FirstWriterOf(VirtualAddress function, RegisterSet registers)
    {
        ulong? lowest = null;
        foreach (CodeBlock block in _effects.Solve(function.Value).Blocks)
        {
            for (int step = block.Start; step >= 0; step = step == block.Last ? -1 : _effects.Steps.After(step))
            {
                ref readonly CodeStep at = ref _effects.Steps[step];
                bool writes = (at.Writes & registers.Bits) != 0 && (lowest is null || at.Address < lowest);
                lowest = writes ? at.Address : lowest;
            }
        }

        return lowest is ulong address ? (VirtualAddress)address : null;
    }

    /// <summary>What is live at a place in code.</summary>
    /// <param name="address">Run address of the instruction that would be executed next.</param>
    /// <param name="liveAtReturn">
    /// What the caller of the surrounding function may read when it returns; <see langword="null"/> for everything.
    /// </param>
    /// <returns>The liveness. Of an address outside the image nothing is known.</returns>
    public SiteLiveness LivenessAt(VirtualAddress address, RegisterSet? liveAtReturn = null)
    {
        var atReturn = new LiveParts(Returned: liveAtReturn is RegisterSet live ? RegisterParts.Of(live) : RegisterParts.All);
        FunctionFlow flow = _effects.SolveFragment(address.Value);
        _liveness.Solve(flow, atReturn);
        return new SiteLiveness(flow, _liveness, _effects.Steps, atReturn);
    }

    private sealed class NoFacts : ICodeFacts;
}
