using PvPatch.Machine;

namespace PvPatch.Analysis;

/// <content>What the last instruction of a block leads to: calls, jumps, returns.</content>
internal sealed partial class EffectsSolver
{
    /// <summary>
    /// A call this near, to no known function, is a push of the address behind it: code that fills the processor's stack of return
    /// addresses.
    /// </summary>
    private const int NearestFunction = 32;

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
            if (flow.IsFragment)
            {
                NotePushed(flow, step.NextAddress);
            }

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

    /// <summary>In the middle of code nobody knows which word a return takes: each may be one that such a call has pushed.</summary>
    private void NotePushed(FunctionFlow flow, ulong address)
    {
        if (flow.Pushed.Contains(address))
        {
            return;
        }

        flow.Pushed.Add(address);
        for (int i = 0; i < flow.Blocks.Count; i++)
        {
            CodeBlock block = flow.Blocks[i];
            if (block.Last >= 0 && (block.LeavesByReturn || block.IsTail || Steps[block.Last].Flow == StepFlow.Return))
            {
                MakePending(flow, i);
            }
        }
    }

    private void GoToPushed(FunctionFlow flow, CodeBlock block, AbstractState state)
    {
        foreach (ulong pushed in flow.Pushed)
        {
            GoTo(flow, block, pushed, state);
        }
    }

    /// <summary>
    /// The last fixed argument of a function with variable ones. A function is seen to be one after its first walk, when its callers are
    /// walked again.
    /// </summary>
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
                    GoToPushed(flow, block, state);
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
            GoToPushed(flow, block, state);
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
            GoToPushed(flow, block, state);
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
