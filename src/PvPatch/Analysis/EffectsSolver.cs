using PvPatch.Machine;

namespace PvPatch.Analysis;

/// <summary>
/// Finds what functions destroy, whether they return and how they leave the stack: each is walked with what is known of registers and saved
/// words, and walked again where a function it calls turns out to do more. It begins with the belief that nothing is destroyed and nothing
/// returns, so functions that never return come out by themselves; what is found before all is settled is therefore worth nothing.
/// </summary>
internal sealed class EffectsSolver
{
    /// <summary>
    /// A call this near, to no known function, is a push of the address behind it: code that fills the processor's stack of return
    /// addresses.
    /// </summary>
    private const int NearestFunction = 32;

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

    /// <summary>What an instruction that goes on does to values.</summary>
    private void Apply(FunctionFlow flow, int at, in CodeStep step, AbstractState state)
    {
        const int Stack = AbstractState.StackPointer;
        AbstractValue top = state[Stack];
        AbstractValue from = step.Base >= 0 ? state[step.Base] : AbstractValue.Unknown;
        AbstractValue own = step.Register >= 0 ? state[step.Register] : AbstractValue.Unknown;
        AbstractValue frame = state[AbstractState.FramePointer];
        if (step.Op == StepOp.Store || (step.Op == StepOp.Pop && step.HasIndex))
        {
            Store(flow, at, step, from, own, state);
        }

        state.Forget(step.Writes & ~RegisterSet.Rsp.Bits);
        if ((step.Writes & RegisterSet.Rsp.Bits) != 0 && step.Op is StepOp.Other or StepOp.Store or StepOp.Load)
        {
            state[Stack] = AbstractValue.SomewhereOnStack;
        }

        switch (step.Op)
        {
            case StepOp.Move:
                state[step.Register] = from;
                break;
            case StepOp.Exchange:
                state[step.Register] = from;
                state[step.Base] = own;
                break;
            case StepOp.Constant:
                state[step.Register] = AbstractValue.Constant(step.Operand);
                break;
            case StepOp.Lea:
                state[step.Register] = from.Plus(step.Operand);
                break;
            case StepOp.Align:
                state.Align();
                break;
            case StepOp.Push or StepOp.PushConstant:
                state[Stack] = top.Plus(-_word);
                NoteStackStore(
                    flow, step, state[Stack], state, step.Op == StepOp.PushConstant ? AbstractValue.Constant(step.Operand) : own);
                break;
            case StepOp.Pop:
                state[Stack] = top.Plus(_word);
                if (step.Register >= 0)
                {
                    state[step.Register] = Loaded(state, top);
                }

                break;
            case StepOp.Load:
                flow.UsesRedZone |= from.Kind == top.Kind && top.IsOnStack && from.Data + step.Operand < top.Data;
                state[step.Register] = Loaded(state, from.Plus(step.Operand));
                break;
            case StepOp.Leave:
                state[AbstractState.FramePointer] = Loaded(state, frame);
                state[Stack] = frame.Plus(_word);
                break;
            default:
                break;
        }

        if (state[Stack] != top)
        {
            MovedStack(step, state);
        }
    }

    /// <summary>The stack pointer was moved: what is below it now may be overwritten by whatever interrupts the code.</summary>
    private static void MovedStack(in CodeStep step, AbstractState state)
    {
        if (!state[AbstractState.StackPointer].IsOnStack)
        {
            state.ForgetSaved(); // a stack that is not the one of the entry
        }
        else if (step.Op is not (StepOp.Push or StepOp.PushConstant or StepOp.Align))
        {
            state.ForgetBelowStackPointer();
        }
    }

    private static AbstractValue Loaded(AbstractState state, AbstractValue at) =>
        at.Kind is ValueKind.Stack or ValueKind.AlignedStack ? state.Load(at) : AbstractValue.Unknown;

    private void Store(FunctionFlow flow, int at, in CodeStep step, AbstractValue from, AbstractValue own, AbstractState state)
    {
        AbstractValue place = step.HasIndex || step.Size == 0 ? from.IsOnStack ? AbstractValue.SomewhereOnStack : AbstractValue.Unknown
            : step.Base < 0 ? AbstractValue.Constant(0) // a fixed address: not on the stack
            : from.Plus(step.Operand);
        if (place.Kind is ValueKind.Stack or ValueKind.AlignedStack)
        {
            NoteStackStore(flow, step, place, state, own);
            int argument = step.Register >= 0 && own.IsEntryOf(step.Register) ? _convention.ArgumentOf(step.Register) : -1;
            if (argument >= 0 && place.Kind == ValueKind.Stack)
            {
                flow.NoteSpill(argument, place.Data, at);
            }
        }
        else if ((!_convention.IsKnown && place.Kind != ValueKind.Constant) || (step.Op == StepOp.Pop && place.IsOnStack))
        {
            state.ForgetSaved();
        }
    }

    private void NoteStackStore(FunctionFlow flow, in CodeStep step, AbstractValue place, AbstractState state, AbstractValue value)
    {
        if (place.Kind is not (ValueKind.Stack or ValueKind.AlignedStack))
        {
            if (!_convention.IsKnown || !place.IsOnStack)
            {
                state.ForgetSaved();
            }

            return;
        }

        int size = step.Op is StepOp.Push or StepOp.PushConstant ? _word : step.Size;
        AbstractValue top = state[AbstractState.StackPointer];
        flow.UsesRedZone |= top.Kind == place.Kind && place.Data < top.Data;
        if (!flow.IsFragment && place.Kind == ValueKind.Stack && place.Data < _word && place.Data + size > 0)
        {
            flow.SetProblem(FlowProblem.ReturnAddress, step.Address);
            End(flow, RegisterSet.All.Bits, returns: true);
        }

        state.Store(place, size, value, _word);
    }

    /// <summary>What the last instruction of a block leads to.</summary>
    private void Leave(FunctionFlow flow, int index, in CodeStep step, AbstractState state)
    {
        CodeBlock block = flow.Blocks[index];
        switch (step.Flow)
        {
            case StepFlow.Jump:
                Jump(flow, index, step, (ulong)step.Operand, state);
                break;
            case StepFlow.Branch:
                state.Forget(step.Writes);
                GoTo(flow, block, step.NextAddress, state);
                Jump(flow, index, step, (ulong)step.Operand, state);
                break;
            case StepFlow.Call:
                Call(flow, index, step, state);
                break;
            case StepFlow.IndirectCall or StepFlow.Outside:
                CallUnknown(flow, block, step, step.Flow == StepFlow.IndirectCall ? _facts.CalledFrom(step.Address) : null, state);
                break;
            case StepFlow.IndirectJump:
                JumpUnknown(flow, block, step, _facts.CalledFrom(step.Address), state);
                break;
            case StepFlow.Return:
                Return(flow, block, step, state, (int)step.Operand);
                break;
            case StepFlow.Trap:
                if (_facts.AfterTrap(step.Address, step.NextAddress) is VirtualAddress after)
                {
                    GoTo(flow, block, after.Value, state);
                }

                break;
            case StepFlow.InterruptReturn:
                ReturnFromInterrupt(flow, block, step, state);
                break;
            default:
                Unknown(flow, block, FlowProblem.NoInstruction, step.Address);
                break;
        }
    }

    private void Call(FunctionFlow flow, int index, in CodeStep step, AbstractState state)
    {
        CodeBlock block = flow.Blocks[index];
        ulong target = (ulong)step.Operand;
        FunctionFacts? facts = _facts.FunctionAt(target);
        if (facts is null && target - step.NextAddress < NearestFunction)
        {
            state[AbstractState.StackPointer] = state[AbstractState.StackPointer].Plus(-_word);
            NoteStackStore(flow, step with { Op = StepOp.Push }, state[AbstractState.StackPointer], state,
                AbstractValue.Constant((long)step.NextAddress));
            GoTo(flow, block, target, state);
            return;
        }

        if (facts is { Destroys: not null } or { Role: not FunctionRole.Ordinary })
        {
            CallUnknown(flow, block, step, facts, state);
            return;
        }

        FunctionFlow callee = Connect(flow, index, target);
        flow.UsesRedZone |= callee.UsesRedZone;
        NoteFormat(block, callee, state);
        if (callee.Returns)
        {
            GoOn(flow, block, step, callee.Destroys, state);
        }
    }

    /// <summary>The last fixed argument of a function with variable ones. A function is seen to be one after its first walk, when its callers are walked again.</summary>
    private void NoteFormat(CodeBlock block, FunctionFlow callee, AbstractState state)
    {
        int fixedCount = callee.FixedArguments(_convention.ArgumentCount, _word);
        if (fixedCount > 0)
        {
            block.Format = state[_convention.Argument(fixedCount - 1)];
        }
    }

    private FunctionFlow Connect(FunctionFlow flow, int index, ulong target)
    {
        CodeBlock block = flow.Blocks[index];
        if (block.Callee is null)
        {
            block.Callee = Function(target);
            if (!block.Callee.IsSettled)
            {
                block.Callee.Callers.Add((flow, index));
            }
        }

        return block.Callee;
    }

    /// <summary>A call of code that is not followed.</summary>
    private void CallUnknown(FunctionFlow flow, CodeBlock block, in CodeStep step, FunctionFacts? facts, AbstractState state)
    {
        block.Declared = facts is { Destroys: not null } ? facts : null;
        block.LeadsToUnknown = block.Declared is null;
        block.Pointer = PointerOf(facts);
        if (block.LeadsToUnknown && !_convention.IsKnown)
        {
            flow.SetProblem(FlowProblem.UnknownCall, step.Address);
        }

        GoOn(flow, block, step, block.Declared?.Destroys?.Bits ?? _convention.Destroyed, state);
    }

    private static ulong PointerOf(FunctionFacts? facts) =>
        facts is { Role: FunctionRole.Indirect } ? RegisterParts.Of(facts.Reads ?? RegisterSet.AllGeneral) : 0;

    private void GoOn(FunctionFlow flow, CodeBlock block, in CodeStep step, uint destroyed, AbstractState state)
    {
        destroyed &= ~_convention.Kept;
        state.ForgetBelowStackPointer();
        if (!_convention.IsKnown)
        {
            state.ForgetSaved();
        }

        state.Forget(destroyed);
        if ((destroyed & RegisterSet.Rsp.Bits) != 0)
        {
            state[AbstractState.StackPointer] = AbstractValue.SomewhereOnStack;
        }

        GoTo(flow, block, step.NextAddress, state);
    }

    private void Jump(FunctionFlow flow, int index, in CodeStep step, ulong target, AbstractState state)
    {
        CodeBlock block = flow.Blocks[index];
        FunctionFacts? facts = _facts.FunctionAt(target);
        switch (facts)
        {
            case { Role: FunctionRole.Return }:
                block.LeavesByReturn = true;
                Return(flow, block, step, state, 0);
                return;
            case { Role: FunctionRole.Indirect } or { Destroys: not null }:
                JumpUnknown(flow, block, step, facts, state);
                return;
            case not null when target != flow.Entry && (flow.IsFragment || IsBalanced(state)):
                FunctionFlow callee = Connect(flow, index, target);
                block.IsTail = true;
                NoteFormat(block, callee, state);
                flow.UsesRedZone |= callee.UsesRedZone;
                if (callee.Returns)
                {
                    LeaveFor(flow, callee.Destroys, state);
                }

                return;
            default:
                GoTo(flow, block, target, state);
                return;
        }
    }

    private void JumpUnknown(FunctionFlow flow, CodeBlock block, in CodeStep step, FunctionFacts? facts, AbstractState state)
    {
        bool declared = facts is { Destroys: not null };
        block.Declared = declared ? facts : null;
        block.IsTail = true;
        block.LeadsToUnknown = !declared;
        block.Pointer = PointerOf(facts);
        if (flow.IsFragment)
        {
            return;
        }

        if ((declared || _convention.IsKnown) && IsBalanced(state))
        {
            LeaveFor(flow, facts?.Destroys?.Bits ?? _convention.Destroyed, state);
            return;
        }

        Unknown(flow, block, FlowProblem.IndirectJump, step.Address);
    }

    /// <summary>The function's place is taken by another, which returns to its caller.</summary>
    private static void LeaveFor(FunctionFlow flow, uint destroyed, AbstractState state)
    {
        state.Forget(destroyed & ~RegisterSet.Rsp.Bits);
        End(flow, state.Changed() | (destroyed & RegisterSet.Rsp.Bits), returns: true);
    }

    private void Return(FunctionFlow flow, CodeBlock block, in CodeStep step, AbstractState state, int popped)
    {
        if (flow.IsFragment)
        {
            return;
        }

        AbstractValue top = state[AbstractState.StackPointer];
        if (IsBalanced(state))
        {
            End(flow, state.Changed() | (popped != 0 ? RegisterSet.Rsp.Bits : 0), returns: true);
            return;
        }

        AbstractValue target = top.Kind is ValueKind.Stack or ValueKind.AlignedStack ? state.Load(top) : AbstractValue.Unknown;
        if (target.Kind == ValueKind.Constant && popped == 0)
        {
            state[AbstractState.StackPointer] = top.Plus(_word);
            GoTo(flow, block, (ulong)target.Data, state);
            return;
        }

        Unknown(flow, block, FlowProblem.StackPointer, step.Address);
    }

    /// <summary>
    /// iret and its like leave for whatever was interrupted. The kernel's way to synchronize a processor is an iret to the next
    /// instruction, whose frame (rip, cs, flags, rsp, ss) it has just pushed.
    /// </summary>
    private void ReturnFromInterrupt(FunctionFlow flow, CodeBlock block, in CodeStep step, AbstractState state)
    {
        AbstractValue top = state[AbstractState.StackPointer];
        bool isFollowed = top.Kind is ValueKind.Stack or ValueKind.AlignedStack && _word == 8;
        AbstractValue target = isFollowed ? state.Load(top) : AbstractValue.Unknown;
        AbstractValue stack = isFollowed ? state.Load(top.Plus(3 * _word)) : AbstractValue.Unknown;
        if (target.Kind == ValueKind.Constant && (ulong)target.Data == step.NextAddress)
        {
            state[AbstractState.StackPointer] = stack.IsOnStack ? stack : AbstractValue.SomewhereOnStack;
            state[CodeStep.FlagsRegister] = AbstractValue.Unknown;
            GoTo(flow, block, step.NextAddress, state);
        }
        else if (flow.IsFragment)
        {
            block.LeadsToUnknown = true;
            GoTo(flow, block, step.NextAddress, state);
        }
        else
        {
            Unknown(flow, block, FlowProblem.InterruptReturn, step.Address);
        }
    }

    private static void Unknown(FunctionFlow flow, CodeBlock block, FlowProblem problem, ulong address)
    {
        block.LeadsToUnknown = true;
        flow.SetProblem(problem, address);
        End(flow, RegisterSet.All.Bits, returns: true);
    }

    private static void End(FunctionFlow flow, uint destroys, bool returns)
    {
        flow.Destroys |= destroys;
        flow.Returns |= returns;
    }

    private static bool IsBalanced(AbstractState state) => state[AbstractState.StackPointer] == AbstractValue.Stack(0);
}

/// <summary>How much work an analysis may do: instructions walked, each time they are.</summary>
internal sealed class WorkLimit(long steps)
{
    private long _left = steps;

    public bool IsReached => _left <= 0;

    public bool Take() => --_left > 0;
}

/// <summary>What a convention means for calls; nothing where none is known.</summary>
internal sealed class Convention
{
    private static readonly int[] s_sysV = [7, 6, 2, 1, 8, 9];
    private static readonly int[] s_windows = [1, 2, 8, 9];
    private static readonly int[] s_regParm = [0, 2, 1];

    private readonly int[] _arguments;

    public Convention(CallConvention? convention, int bitness)
    {
        IsKnown = convention is not null;
        RegisterSet destroyed = convention is CallConvention known ? CallConventions.DestroyedBy(known, bitness) : RegisterSet.All;
        Destroyed = destroyed.Bits;
        Kept = (~destroyed).Bits;
        _arguments = convention switch
        {
            null => [],
            CallConvention.WindowsX64 => s_windows,
            CallConvention.I386RegParm => s_regParm,
            _ => bitness == 64 ? s_sysV : s_regParm,
        };
        ulong arguments = 0;
        foreach (int register in _arguments)
        {
            arguments |= RegisterParts.Whole(register);
        }

        Arguments = IsKnown ? arguments | (bitness == 64 ? RegisterParts.Whole(0) : 0) | (
            destroyed.Contains(RegisterSet.Vector) ? RegisterParts.Vector : 0) : RegisterParts.All;
    }

    public bool IsKnown { get; }

    /// <summary>What a call may destroy: bits of <see cref="RegisterSet"/>.</summary>
    public uint Destroyed { get; }

    /// <summary>What a call is taken to keep.</summary>
    public uint Kept { get; }

    /// <summary>
    /// Parts that a function of which nothing is known may read; rax tells a variadic one the number of vector registers.
    /// </summary>
    public ulong Arguments { get; }

    /// <summary>Parts that a function can read at entry: its arguments where they are known, and the stack pointer.</summary>
    public ulong Passed(FunctionFacts? facts) => !IsKnown ? RegisterParts.All
        : facts is { Role: FunctionRole.Ordinary, Reads: { } reads } ? RegisterParts.Of(reads | RegisterSet.Rsp)
        : RegisterParts.All & ~RegisterParts.Flags;

    public int ArgumentCount => _arguments.Length;

    public int Argument(int index) => _arguments[index];

    public int ArgumentOf(int register) => Array.IndexOf(_arguments, register);
}
