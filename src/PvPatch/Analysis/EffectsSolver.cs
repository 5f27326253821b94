using PvPatch.Machine;

namespace PvPatch.Analysis;

/// <summary>
/// Finds what functions destroy, whether they return and how they leave the stack: each is walked with what is known of registers and saved
/// words, and walked again where a function it calls turns out to do more. It begins with the belief that nothing is destroyed and nothing
/// returns, so functions that never return come out by themselves; what is found before all is settled is therefore worth nothing.
/// </summary>
internal sealed partial class EffectsSolver
{
    private readonly ICodeFacts _facts;
    private readonly Convention _convention;
    private readonly WorkLimit _limit;
    private readonly Dictionary<ulong, FunctionFlow> _functions = [];
    private readonly Queue<FunctionFlow> _queue = new();
    private readonly List<FunctionFlow> _touched = [];
    private readonly int _word;

    public EffectsSolver(StepStore steps, ICodeFacts facts, Convention convention, WorkLimit limit, int word)
    {
        Steps = steps;
        _facts = facts;
        _convention = convention;
        _limit = limit;
        _word = word;
    }

    public StepStore Steps { get; }

    public IEnumerable<FunctionFlow> Functions => _functions.Values;

    /// <summary>A function and all it calls, settled.</summary>
    public FunctionFlow Solve(ulong entry) => Settle(Function(entry));

    /// <summary>The rest of a function from an address on, and all that is called there, settled.</summary>
    public FunctionFlow SolveFragment(ulong address)
    {
        var flow = new FunctionFlow(address, isFragment: true);
        Begin(flow, AbstractState.Anywhere());
        return Settle(flow);
    }

    private FunctionFlow Settle(FunctionFlow wanted)
    {
        while (_queue.TryDequeue(out FunctionFlow? flow))
        {
            flow.IsQueued = false;
            Walk(flow);
            if (_limit.IsReached)
            {
                GiveUp();
                break;
            }
        }

        foreach (FunctionFlow flow in _touched)
        {
            flow.Settle();
        }

        _touched.Clear();
        return wanted;
    }

    /// <summary>The work was more than allowed: of whatever is not settled nothing is known.</summary>
    private void GiveUp()
    {
        _queue.Clear();
        foreach (FunctionFlow flow in _touched)
        {
            flow.Destroys = RegisterSet.All.Bits;
            flow.Returns = true;
            flow.UsesRedZone = true;
            flow.SetProblem(FlowProblem.Budget, flow.Entry);
        }
    }

    private FunctionFlow Function(ulong entry)
    {
        if (!_functions.TryGetValue(entry, out FunctionFlow? flow))
        {
            flow = new FunctionFlow(entry, isFragment: false, _convention.Passed(_facts.FunctionAt(entry)));
            _functions.Add(entry, flow);
            Begin(flow, AbstractState.AtEntry());
        }

        return flow;
    }

    private void Begin(FunctionFlow flow, AbstractState state)
    {
        _touched.Add(flow);
        Arrive(flow, flow.Entry, state);
        Enqueue(flow);
    }

    private void Enqueue(FunctionFlow flow)
    {
        if (!flow.IsQueued)
        {
            flow.IsQueued = true;
            _queue.Enqueue(flow);
        }
    }

    private void Walk(FunctionFlow flow)
    {
        (uint Destroys, bool Returns, bool UsesRedZone) before = (flow.Destroys, flow.Returns, flow.UsesRedZone);
        while (flow.Pending.TryPop(out int index) && !_limit.IsReached)
        {
            flow.Blocks[index].IsPending = false;
            WalkBlock(flow, index);
        }

        if (before == (flow.Destroys, flow.Returns, flow.UsesRedZone))
        {
            return;
        }

        foreach ((FunctionFlow caller, int block) in flow.Callers)
        {
            MakePending(caller, block);
            Enqueue(caller);
        }
    }

    private static void MakePending(FunctionFlow flow, int index)
    {
        CodeBlock block = flow.Blocks[index];
        if (!block.IsPending)
        {
            block.IsPending = true;
            flow.Pending.Push(index);
        }
    }

    /// <summary>Control comes to an address: the block there is walked if anything about it is new.</summary>
    private int Arrive(FunctionFlow flow, ulong address, AbstractState state)
    {
        int step = Steps.At(address);
        int index = flow.BlockAt(step);
        if (index < 0)
        {
            index = flow.Add(new CodeBlock(step, state.Copy()));
            MakePending(flow, index);
        }
        else if (flow.Blocks[index].Entry!.Join(state))
        {
            MakePending(flow, index);
        }

        return index;
    }

    private void WalkBlock(FunctionFlow flow, int index)
    {
        CodeBlock block = flow.Blocks[index];
        AbstractState state = block.Entry!.Copy();
        for (int at = block.Start; ; at = Steps.After(at))
        {
            if (!_limit.Take())
            {
                return;
            }

            CodeStep step = Steps[at];
            if (step.HasEdges && at != block.Start)
            {
                GoTo(flow, block, step.Address, state); // a block of its own: control may leave it without having executed the instruction
                return;
            }

            block.Last = at;
            if (step.HasEdges)
            {
                foreach (VirtualAddress edge in _facts.EdgesOf(step.Address))
                {
                    AddOnce(block.Edges ??= [], Arrive(flow, edge.Value, state));
                }
            }

            if (step.Flow != StepFlow.Next)
            {
                Leave(flow, index, step, state);
                return;
            }

            Apply(flow, at, step, state);
            if (step.HasEdges || step.IsDiverted)
            {
                GoTo(flow, block, step.NextAddress, state);
                return;
            }
        }
    }

    private void GoTo(FunctionFlow flow, CodeBlock block, ulong address, AbstractState state) =>
        AddOnce(block.Successors, Arrive(flow, address, state));

    private static void AddOnce(List<int> list, int item)
    {
        if (!list.Contains(item))
        {
            list.Add(item);
        }
    }
}
