using PvPatch.Machine;

namespace PvPatch.Analysis;

/// <summary>Why it is not known what code does.</summary>
internal enum FlowProblem
{
    None,
    NoInstruction,
    OutsideImage,
    IndirectJump,
    UnknownCall,
    ReturnAddress,
    StackPointer,
    InterruptReturn,
    Budget,
}

/// <summary>A run of instructions from where control comes in to the first that can lead elsewhere. Runs may share instructions.</summary>
internal sealed class CodeBlock(int start, AbstractState entry)
{
    /// <summary>The first step.</summary>
    public int Start { get; } = start;

    /// <summary>What is known before the first step.</summary>
    public AbstractState? Entry { get; set; } = entry;

    public bool IsPending { get; set; }

    /// <summary>The last step, -1 before the first walk.</summary>
    public int Last { get; set; } = -1;

    /// <summary>Blocks that control goes to after the last step.</summary>
    public List<int> Successors { get; } = [];

    /// <summary>Blocks that control goes to instead of the last step.</summary>
    public List<int>? Edges { get; set; }

    /// <summary>The function that the last step calls or jumps to.</summary>
    public FunctionFlow? Callee { get; set; }

    /// <summary>What is believed of it instead.</summary>
    public FunctionFacts? Declared { get; set; }

    /// <summary>Whether the last step leaves the function for good, so that what is live at its return is live behind the callee.</summary>
    public bool IsTail { get; set; }

    /// <summary>Whether the last step is a jump that amounts to a return.</summary>
    public bool LeavesByReturn { get; set; }

    /// <summary>Whether unknown code runs after the last step, or instead of it.</summary>
    public bool LeadsToUnknown { get; set; }

    /// <summary>Parts of the register that a thunk at the end calls or jumps through.</summary>
    public ulong Pointer { get; set; }

    /// <summary>The last fixed argument of a call with variable arguments, where it is a constant.</summary>
    public AbstractValue Format { get; set; }

    /// <summary>Parts live before the first step.</summary>
    public LiveParts Live { get; set; }
}

/// <summary>The blocks that control can come to from an address on, and what they do in sum.</summary>
internal sealed class FunctionFlow(ulong entry, bool isFragment, ulong arguments = RegisterParts.All)
{
    private Dictionary<int, int> _blockAt = [];
    private List<(int Argument, long Offset, int Step)>? _spills;

    /// <summary>Run address of the first instruction.</summary>
    public ulong Entry { get; } = entry;

    /// <summary>Whether it is the rest of a function, entered in the middle.</summary>
    public bool IsFragment { get; } = isFragment;

    /// <summary>Parts it can read at entry: those of its arguments, where they are known.</summary>
    public ulong Arguments { get; } = arguments;

    public List<CodeBlock> Blocks { get; } = [];

    public Stack<int> Pending { get; } = new();

    /// <summary>Functions whose blocks call or jump to this one.</summary>
    public List<(FunctionFlow Caller, int Block)> Callers { get; private set; } = [];

    public bool IsQueued { get; set; }

    /// <summary>Whether nothing it depends on can change any more.</summary>
    public bool IsSettled { get; private set; }

    /// <summary>
    /// Registers that do not come back as they were: bits of <see cref="RegisterSet"/>; the stack pointer, where it is moved.
    /// </summary>
    public uint Destroys { get; set; }

    public bool Returns { get; set; }

    public bool UsesRedZone { get; set; }

    public FlowProblem Problem { get; private set; }

    public ulong ProblemAddress { get; private set; }

    /// <summary>Parts live before the first instruction, once its liveness is solved.</summary>
    public LiveParts Live { get; set; }

    public bool IsLivenessKnown { get; set; }

    /// <summary>Notes that nothing about it can change any more, and gives up what only the walk needs.</summary>
    public void Settle()
    {
        IsSettled = true;
        Callers = [];
        _blockAt = [];
        Blocks.TrimExcess();
        foreach (CodeBlock block in Blocks)
        {
            block.Entry = null;
            block.Successors.TrimExcess();
        }
    }

    public void SetProblem(FlowProblem problem, ulong address)
    {
        if (Problem == FlowProblem.None)
        {
            Problem = problem;
            ProblemAddress = address;
        }
    }

    /// <summary>The block that begins with a step, or -1.</summary>
    public int BlockAt(int step) => _blockAt.TryGetValue(step, out int block) ? block : -1;

    public int Add(CodeBlock block)
    {
        _blockAt.Add(block.Start, Blocks.Count);
        Blocks.Add(block);
        return Blocks.Count - 1;
    }

    /// <summary>Notes that an argument register is stored on the stack as it was at entry.</summary>
    public void NoteSpill(int argument, long offset, int step)
    {
        _spills ??= [];
        if (_spills.Count < 24 && !_spills.Contains((argument, offset, step)))
        {
            _spills.Add((argument, offset, step));
        }
    }

    /// <summary>
    /// The number of fixed arguments of a function that takes variable ones: it stores the registers of all others side by side, in order,
    /// the last argument register included. -1 for other functions.
    /// </summary>
    /// <param name="count">The number of argument registers.</param>
    /// <param name="word">Their size in bytes.</param>
    public int FixedArguments(int count, int word)
    {
        int first = -1;
        foreach ((int argument, long last, _) in _spills ?? [])
        {
            if (argument != count - 1)
            {
                continue;
            }

            int from = count - 1;
            while (from > 0 && IsSpilled(from - 1, last - ((count - from) * word)))
            {
                from--;
            }

            first = from is > 0 && from <= count - 2 ? from : first;
        }

        return first;
    }

    /// <summary>Whether a step is one of those stores.</summary>
    public bool IsSpill(int step) => _spills is not null && _spills.Exists(s => s.Step == step);

    private bool IsSpilled(int argument, long offset) => _spills!.Exists(s => s.Argument == argument && s.Offset == offset);
}

/// <summary>Parts of registers that are live, by what reads them first.</summary>
/// <param name="Read">By an instruction, or as an argument that a function is known to take.</param>
/// <param name="Stored">By nothing but a push, which may only make room on the stack.</param>
/// <param name="Passed">By nothing but code that is not known: an indirect call, bytes that cannot be followed.</param>
/// <param name="Returned">By nothing but a return; of a called function, for the sake of its result.</param>
/// <param name="ReturnedSecond">Of a called function, for the sake of the second register of its result.</param>
internal readonly record struct LiveParts(ulong Read = 0, ulong Stored = 0, ulong Passed = 0, ulong Returned = 0, ulong ReturnedSecond = 0)
{
    public ulong Any => Read | Stored | Passed | Returned | ReturnedSecond;

    public static LiveParts operator |(LiveParts a, LiveParts b) =>
        new(a.Read | b.Read, a.Stored | b.Stored, a.Passed | b.Passed, a.Returned | b.Returned, a.ReturnedSecond | b.ReturnedSecond);

    /// <summary>What something that works backwards on a set of parts makes of each.</summary>
    public LiveParts Each(Func<ulong, ulong> before) =>
        new(before(Read), before(Stored), before(Passed), before(Returned), before(ReturnedSecond));

    public LiveParts Without(ulong parts) =>
        new(Read & ~parts, Stored & ~parts, Passed & ~parts, Returned & ~parts, ReturnedSecond & ~parts);
}
