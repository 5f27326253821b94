namespace PvPatch.Analysis;

/// <summary>
/// Finds what is live before functions and fragments whose effects are settled: backwards over their blocks, and again where what a called
/// function reads turns out to be more.
/// </summary>
internal sealed class LivenessSolver(StepStore steps, ICodeFacts facts, Convention convention, WorkLimit limit, int word)
{
    private static readonly ulong s_result = RegisterParts.Whole(0);
    private static readonly ulong s_second = RegisterParts.Whole(2);

    private readonly List<int> _path = [];

    /// <summary>
    /// What is live where a called function returns: its result, in two sets that tell which register of it is meant; everything where no
    /// convention is known.
    /// </summary>
    private LiveParts AtReturn =>
        convention.IsKnown ? new LiveParts(Returned: s_result, ReturnedSecond: s_second) : new LiveParts(Returned: RegisterParts.All);

    /// <summary>Solves the liveness of a settled flow and of all it calls.</summary>
    /// <param name="flow">The flow.</param>
    /// <param name="atReturn">Parts that are live where it returns.</param>
    public void Solve(FunctionFlow flow, LiveParts atReturn)
    {
        if (flow.IsLivenessKnown)
        {
            return;
        }

        Dictionary<FunctionFlow, List<FunctionFlow>> callers = Reach(flow, out List<FunctionFlow> order);
        var queue = new Queue<FunctionFlow>(order);
        var queued = new HashSet<FunctionFlow>(order);
        while (queue.TryDequeue(out FunctionFlow? next) && !limit.IsReached)
        {
            queued.Remove(next);
            LiveParts before = next.Live;
            SolveBlocks(next, next == flow ? atReturn : AtReturn);
            if (next.Live == before)
            {
                continue;
            }

            foreach (FunctionFlow caller in callers[next])
            {
                if (queued.Add(caller))
                {
                    queue.Enqueue(caller);
                }
            }
        }

        foreach (FunctionFlow solved in order)
        {
            solved.Live |= limit.IsReached ? new LiveParts(Passed: RegisterParts.All) : default;
            solved.IsLivenessKnown = true;
        }
    }

    /// <summary>What is live behind each step of a block, first step first.</summary>
    public List<(int Step, LiveParts After)> Walk(FunctionFlow flow, CodeBlock block, LiveParts atReturn)
    {
        var walk = new List<(int Step, LiveParts After)>();
        Gather(block);
        LiveParts live = AfterLast(flow, block, atReturn);
        for (int i = _path.Count - 1; i >= 0; i--)
        {
            walk.Add((_path[i], live));
            live = Before(flow, _path[i], live);
        }

        walk.Reverse();
        return walk;
    }

    /// <summary>What the call or jump at the end of a block reads.</summary>
    /// <param name="block">The block.</param>
    /// <param name="after">What is live where the function returns to.</param>
    private LiveParts Arguments(CodeBlock block, LiveParts after)
    {
        if (block.Declared is { } declared)
        {
            return declared.Reads is { } reads ? new LiveParts(RegisterParts.Of(reads)) : new LiveParts(Passed: convention.Arguments);
        }

        if (block.LeadsToUnknown)
        {
            return new LiveParts(block.Pointer, Passed: IsCallOrTail(block) ? convention.Arguments : RegisterParts.All);
        }

        if (block.Callee is not FunctionFlow callee)
        {
            return default;
        }

        LiveParts own = (callee.Live with { Returned = 0, ReturnedSecond = 0 }).Without(~callee.Arguments);
        if (!convention.IsKnown)
        {
            return own | new LiveParts(callee.Live.Returned); // what changes anything that it leaves behind
        }

        ulong first = callee.Live.Returned & callee.Arguments & ~s_result;
        ulong second = callee.Live.ReturnedSecond & callee.Arguments & ~s_second;
        return own | VariableArguments(block, callee) | after.Each(
            live => ((live & s_result) != 0 ? first : 0) | ((live & s_second) != 0 ? second : 0));
    }

    /// <summary>The same with what is live behind the block.</summary>
    public LiveParts ArgumentsOf(FunctionFlow flow, CodeBlock block, LiveParts atReturn) =>
        Arguments(block, block.IsTail ? atReturn | AfterSuccessors(flow, block) : AfterSuccessors(flow, block));

    private static LiveParts AfterSuccessors(FunctionFlow flow, CodeBlock block)
    {
        LiveParts after = default;
        foreach (int successor in block.Successors)
        {
            after |= flow.Blocks[successor].Live;
        }

        return after;
    }

    private bool IsCallOrTail(CodeBlock block) =>
        block.IsTail || steps[block.Last].Flow is StepFlow.IndirectCall or StepFlow.Call or StepFlow.Outside;

    /// <summary>The flows that a flow calls, itself included, callees first, each with those that call it.</summary>
    private static Dictionary<FunctionFlow, List<FunctionFlow>> Reach(FunctionFlow root, out List<FunctionFlow> order)
    {
        var callers = new Dictionary<FunctionFlow, List<FunctionFlow>> { [root] = [] };
        order = [];
        var stack = new Stack<(FunctionFlow Flow, int Block)>();
        stack.Push((root, 0));
        while (stack.TryPop(out (FunctionFlow Flow, int Block) top))
        {
            int block = top.Block;
            FunctionFlow? callee = null;
            while (block < top.Flow.Blocks.Count && callee is null)
            {
                callee = top.Flow.Blocks[block++].Callee;
                callee = callee is { IsLivenessKnown: true } ? null : callee;
            }

            if (callee is null)
            {
                order.Add(top.Flow);
                continue;
            }

            stack.Push((top.Flow, block));
            if (callers.TryGetValue(callee, out List<FunctionFlow>? known))
            {
                if (!known.Contains(top.Flow) || known.Count > 64)
                {
                    known.Add(top.Flow);
                }
            }
            else
            {
                callers.Add(callee, [top.Flow]);
                stack.Push((callee, 0));
            }
        }

        return callers;
    }

    private void SolveBlocks(FunctionFlow flow, LiveParts atReturn)
    {
        bool changed = true;
        while (changed && !limit.IsReached)
        {
            changed = false;
            for (int i = flow.Blocks.Count - 1; i >= 0; i--)
            {
                CodeBlock block = flow.Blocks[i];
                LiveParts live = BeforeBlock(flow, block, atReturn);
                changed |= live != block.Live;
                block.Live = live;
            }
        }

        flow.Live = flow.Blocks.Count > 0 ? flow.Blocks[0].Live : default;
    }

    private LiveParts BeforeBlock(FunctionFlow flow, CodeBlock block, LiveParts atReturn)
    {
        if (block.Last < 0)
        {
            return new LiveParts(Passed: RegisterParts.All); // never walked: the work was stopped
        }

        Gather(block);
        LiveParts live = AfterLast(flow, block, atReturn);
        for (int i = _path.Count - 1; i >= 0; i--)
        {
            limit.Take();
            live = Before(flow, _path[i], live);
        }

        foreach (int edge in block.Edges ?? [])
        {
            live |= flow.Blocks[edge].Live;
        }

        return live;
    }

    private void Gather(CodeBlock block)
    {
        _path.Clear();
        for (int at = block.Start; ; at = steps.After(at))
        {
            _path.Add(at);
            if (at == block.Last)
            {
                return;
            }
        }
    }

    /// <summary>What is live once the last step has been executed, what it calls included.</summary>
    private LiveParts AfterLast(FunctionFlow flow, CodeBlock block, LiveParts atReturn)
    {
        LiveParts after = AfterSuccessors(flow, block);
        StepFlow kind = steps[block.Last].Flow;
        LiveParts arguments = ArgumentsOf(flow, block, atReturn);
        if (kind is StepFlow.Call or StepFlow.IndirectCall or StepFlow.Outside)
        {
            after = after.Without(DestroyedBy(block));
        }
        else if (block.IsTail)
        {
            after |= atReturn.Without(DestroyedBy(block));
        }
        else if (kind == StepFlow.Return || block.LeavesByReturn)
        {
            after |= atReturn;
        }

        return after | arguments;
    }

    /// <summary>
    /// Parts that are not live before a call because the function may destroy them. In code of which nothing is known, what it may destroy
    /// it may also keep.
    /// </summary>
    private ulong DestroyedBy(CodeBlock block)
    {
        if (!convention.IsKnown)
        {
            return 0;
        }

        uint destroyed = block.Declared?.Destroys?.Bits ?? block.Callee?.Destroys ?? (block.LeadsToUnknown ? convention.Destroyed : 0);
        return RegisterParts.Of(Machine.RegisterSet.FromBits(destroyed & ~convention.Kept));
    }

    private LiveParts VariableArguments(CodeBlock block, FunctionFlow callee)
    {
        int first = callee.FixedArguments(convention.ArgumentCount, word);
        if (first <= 0)
        {
            return default;
        }

        VirtualAddress? format = block.Format.Kind == ValueKind.Constant ? new VirtualAddress((ulong)block.Format.Data) : null;
        int? count = facts.VariableArguments(callee.Entry, first, format);
        ulong parts = 0;
        for (int i = first; i < convention.ArgumentCount && (count is null || i < first + count); i++)
        {
            parts |= RegisterParts.Whole(convention.Argument(i));
        }

        return count is null ? new LiveParts(Passed: parts) : new LiveParts(parts);
    }

    private LiveParts Before(FunctionFlow flow, int index, LiveParts after)
    {
        ref readonly CodeStep step = ref steps[index];
        ulong use = convention.IsKnown ? step.Use & ~RegisterParts.Direction : step.Use; // conventions keep it clear
        ulong stored = 0;
        if (step.Op == StepOp.Push && step.Register is >= 0 and < 16 && step.Register != AbstractState.StackPointer)
        {
            stored = RegisterParts.Whole(step.Register);
            use &= ~stored;
        }
        else if (step.Op == StepOp.Push && step.Register == CodeStep.FlagsRegister && convention.IsKnown)
        {
            use &= ~RegisterParts.Flags;
        }
        else if (step.Op == StepOp.Store && step.Register >= 0 && flow.IsSpill(index))
        {
            use &= ~RegisterParts.Whole(step.Register);
        }

        return new LiveParts(
            step.Before(after.Read) | use, step.Before(after.Stored) | stored, step.Before(after.Passed), step.Before(after.Returned),
            step.Before(after.ReturnedSecond));
    }
}
