using System.Runtime.CompilerServices;
using PvPatch.Machine;

namespace PvPatch.Analysis;

/// <summary>What is known of a word: what a register held at entry, an address on the stack, a constant, or nothing.</summary>
internal readonly record struct AbstractValue
{
    private const int KindBits = 3;

    private readonly long _bits;

    private AbstractValue(ValueKind kind, long data) => _bits = data << KindBits | (long)kind;

    public static AbstractValue Unknown => default;

    /// <summary>Made of a stack address in a way that is not followed.</summary>
    public static AbstractValue SomewhereOnStack => new(ValueKind.SomewhereOnStack, 0);

    public ValueKind Kind => (ValueKind)(_bits & ((1 << KindBits) - 1));

    public long Data => _bits >> KindBits;

    public bool IsOnStack => Kind is ValueKind.Stack or ValueKind.AlignedStack or ValueKind.SomewhereOnStack;

    /// <summary>What a register (16: the flags, 17: the vector state) held at entry.</summary>
    public static AbstractValue Entry(int register) => new(ValueKind.Entry, register);

    /// <summary>The stack pointer at entry and some bytes.</summary>
    public static AbstractValue Stack(long offset) => new(ValueKind.Stack, offset);

    /// <summary>The stack pointer as it was aligned, and some bytes.</summary>
    public static AbstractValue AlignedStack(long offset) => new(ValueKind.AlignedStack, offset);

    /// <summary>A constant; those that need more than 61 bits are not kept.</summary>
    public static AbstractValue Constant(long value) => value << KindBits >> KindBits == value ? new(ValueKind.Constant, value) : Unknown;

    public bool IsEntryOf(int register) => Kind == ValueKind.Entry && Data == register;

    /// <summary>The value with a constant added.</summary>
    public AbstractValue Plus(long bytes)
    {
        long sum = unchecked(Data + bytes);
        return Kind switch
        {
            ValueKind.Stack or ValueKind.AlignedStack => Math.Abs(sum) < int.MaxValue ? new(Kind, sum) : SomewhereOnStack,
            ValueKind.Constant => Constant(sum),
            ValueKind.Entry when bytes == 0 => this,
            ValueKind.SomewhereOnStack => this,
            _ => Unknown,
        };
    }

    /// <summary>What is known where two ways meet.</summary>
    public AbstractValue Join(AbstractValue other) =>
        this == other ? this : IsOnStack || other.IsOnStack ? SomewhereOnStack : Unknown;
}

/// <summary>The kinds of <see cref="AbstractValue"/>.</summary>
internal enum ValueKind
{
    Unknown,
    Entry,
    Stack,
    AlignedStack,
    Constant,
    SomewhereOnStack,
}

/// <summary>What is known of registers, flags, vector state and saved words at one point of a function.</summary>
internal sealed class AbstractState
{
    public const int Registers = 18;
    public const int StackPointer = 4;
    public const int FramePointer = 5;
    private const int MaxSaved = 48;

    private Values _values;
    private (AbstractValue At, AbstractValue Value)[] _saved = [];
    // where the stack pointer was when it was aligned: words saved below by that count may be those saved above by the other
    private long _alignedAt = long.MinValue;

    private AbstractState()
    {
    }

    public AbstractValue this[int register]
    {
        get => _values[register];
        set => _values[register] = value;
    }

    /// <summary>The state when a function is entered.</summary>
    public static AbstractState AtEntry()
    {
        var state = new AbstractState();
        for (int i = 0; i < Registers; i++)
        {
            state[i] = AbstractValue.Entry(i);
        }

        state[StackPointer] = AbstractValue.Stack(0);
        return state;
    }

    /// <summary>The state in the middle of code: nothing is known.</summary>
    public static AbstractState Anywhere()
    {
        var state = new AbstractState();
        state[StackPointer] = AbstractValue.SomewhereOnStack;
        return state;
    }

    public AbstractState Copy() => new() { _values = _values, _saved = _saved, _alignedAt = _alignedAt };

    /// <summary>Takes over what another way leaves unsure.</summary>
    /// <returns>Whether anything changed.</returns>
    public bool Join(AbstractState other)
    {
        bool changed = false;
        for (int i = 0; i < Registers; i++)
        {
            AbstractValue joined = _values[i].Join(other._values[i]);
            changed |= joined != _values[i];
            _values[i] = joined;
        }

        if (other._alignedAt > _alignedAt)
        {
            changed = true;
            _alignedAt = other._alignedAt;
        }

        for (int i = _saved.Length - 1; i >= 0; i--)
        {
            AbstractValue joined = IsUnsure(_saved[i].At) ? AbstractValue.Unknown : _saved[i].Value.Join(other.Load(_saved[i].At));
            if (joined != _saved[i].Value)
            {
                changed = true;
                SetSaved(i, joined);
            }
        }

        return changed;
    }

    /// <summary>The word saved at a place on the stack.</summary>
    public AbstractValue Load(AbstractValue at)
    {
        foreach ((AbstractValue place, AbstractValue value) in _saved)
        {
            if (place == at)
            {
                return value;
            }
        }

        return AbstractValue.Unknown;
    }

    /// <summary>Stores a word, or some bytes of which nothing is known, at a place on the stack.</summary>
    public void Store(AbstractValue at, int size, AbstractValue value, int word)
    {
        for (int i = _saved.Length - 1; i >= 0; i--)
        {
            AbstractValue place = _saved[i].At;
            bool apart = place.Kind == at.Kind ? place.Data + word <= at.Data || at.Data + size <= place.Data
                : at.Kind == ValueKind.AlignedStack && at.Data + size <= 0; // below all that was saved before the stack was aligned
            if (!apart)
            {
                SetSaved(i, AbstractValue.Unknown);
            }
        }

        if (size == word && value != AbstractValue.Unknown && _saved.Length < MaxSaved && !IsUnsure(at))
        {
            _saved = [.. _saved, (at, value)];
        }
    }

    /// <summary>
    /// Aligns the stack pointer. Places are counted from there on; those counted from where it was aligned before are lost.
    /// </summary>
    public void Align()
    {
        ForgetBelowStackPointer();
        for (int i = _saved.Length - 1; i >= 0; i--)
        {
            if (_saved[i].At.Kind == ValueKind.AlignedStack || _saved[i].Value.Kind == ValueKind.AlignedStack)
            {
                SetSaved(i, AbstractValue.Unknown);
            }
        }

        AbstractValue top = this[StackPointer];
        for (int i = 0; i < Registers; i++)
        {
            this[i] = this[i].Kind == ValueKind.AlignedStack ? AbstractValue.SomewhereOnStack : this[i];
        }

        _alignedAt = top.Kind == ValueKind.Stack ? Math.Max(_alignedAt, top.Data) : long.MaxValue;
        this[StackPointer] = top.Kind == ValueKind.Stack ? AbstractValue.AlignedStack(0) : AbstractValue.SomewhereOnStack;
    }

    /// <summary>Forgets all saved words.</summary>
    public void ForgetSaved() => _saved = [];

    /// <summary>Forgets the words below the stack pointer: other code may use the stack there.</summary>
    public void ForgetBelowStackPointer()
    {
        AbstractValue top = this[StackPointer];
        for (int i = _saved.Length - 1; i >= 0; i--)
        {
            AbstractValue place = _saved[i].At;
            bool kept = place.Kind == top.Kind ? place.Data >= top.Data : top.Kind == ValueKind.AlignedStack && top.Data <= 0;
            if (!kept)
            {
                SetSaved(i, AbstractValue.Unknown);
            }
        }
    }

    /// <summary>Forgets what registers hold.</summary>
    /// <param name="registers">Bits of a <see cref="RegisterSet"/>.</param>
    public void Forget(uint registers)
    {
        for (int i = 0; registers != 0; i++, registers >>= 1)
        {
            if ((registers & 1) != 0)
            {
                this[i] = AbstractValue.Unknown;
            }
        }
    }

    /// <summary>The registers that do not hold what they held at entry; the stack pointer is not among them.</summary>
    public uint Changed()
    {
        uint changed = 0;
        for (int i = 0; i < Registers; i++)
        {
            changed |= i != StackPointer && !this[i].IsEntryOf(i) ? 1u << i : 0;
        }

        return changed;
    }

    private bool IsUnsure(AbstractValue at) => at.Kind == ValueKind.Stack && at.Data < _alignedAt;

    // Arrays of saved words are shared between states, so a change makes a new one.
    private void SetSaved(int index, AbstractValue value)
    {
        if (value != AbstractValue.Unknown)
        {
            _saved = [.. _saved];
            _saved[index].Value = value;
            return;
        }

        _saved = [.. _saved[..index], .. _saved[(index + 1)..]];
    }

    [InlineArray(Registers)]
    private struct Values
    {
        private AbstractValue _first;
    }
}
