using PvPatch.Machine;

namespace PvPatch.Analysis;

/// <content>What single instructions do to registers and saved words.</content>
internal sealed partial class EffectsSolver
{
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
}
