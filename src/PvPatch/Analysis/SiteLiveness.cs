using PvPatch.Machine;

namespace PvPatch.Analysis;

/// <summary>What reads a register first.</summary>
public enum RegisterUseKind
{
    /// <summary>An instruction, or a function that is known to take it as an argument.</summary>
    Instruction,

    /// <summary>A push, and nothing that was found reads what it stores: it may only make room on the stack.</summary>
    Push,

    /// <summary>A return: the caller may read it.</summary>
    Return,

    /// <summary>Code that is not known: an indirect call, a jump that cannot be followed.</summary>
    UnknownCode,
}

/// <summary>Instructions that lie and are executed one behind the other.</summary>
public readonly record struct CodeRun
{
    internal CodeRun(VirtualAddress start, VirtualAddress last)
    {
        Start = start;
        Last = last;
    }

    /// <summary>Run address of the first instruction.</summary>
    public VirtualAddress Start { get; }

    /// <summary>
    /// Run address of the last instruction: control goes elsewhere after it, or instead of it where <see cref="ICodeFacts.EdgesOf"/> says
    /// so.
    /// </summary>
    public VirtualAddress Last { get; }
}

/// <summary>The first read of a register behind a place.</summary>
public sealed class RegisterUse
{
    internal RegisterUse(RegisterSet register, RegisterUseKind kind, VirtualAddress address, IReadOnlyList<CodeRun> path)
    {
        Register = register;
        Kind = kind;
        Address = address;
        Path = path;
    }

    /// <summary>The register.</summary>
    public RegisterSet Register { get; }

    /// <summary>What reads it.</summary>
    public RegisterUseKind Kind { get; }

    /// <summary>Run address of the instruction that reads it, or calls what does.</summary>
    public VirtualAddress Address { get; }

    /// <summary>The runs of instructions on a shortest way there: the first begins at the place, the last ends with the read.</summary>
    public IReadOnlyList<CodeRun> Path { get; }
}

/// <summary>What is read behind a place in code before it is written.</summary>
public sealed class SiteLiveness
{
    private readonly FunctionFlow _flow;
    private readonly LivenessSolver _solver;
    private readonly StepStore _steps;
    private readonly LiveParts _atReturn;

    internal SiteLiveness(FunctionFlow flow, LivenessSolver solver, StepStore steps, LiveParts atReturn)
    {
        _flow = flow;
        _solver = solver;
        _steps = steps;
        _atReturn = atReturn;
        Live = RegisterParts.ToRegisters(ReadWhole(flow.Live.Read));
        MayBeLive = RegisterParts.ToRegisters(flow.Live.Any).Except(Live);
        Undecided = flow.Problem == FlowProblem.Budget || flow.Live.Passed == RegisterParts.All ? AnalysisDiagnostics.Of(flow) : null;
    }

    /// <summary>Run address of the place.</summary>
    public VirtualAddress Address => _flow.Entry;

    /// <summary>What some instruction reads before it is written: at least the lowest byte of each register.</summary>
    public RegisterSet Live { get; }

    /// <summary>
    /// What may be read by a return or unknown code alone, is only pushed, or is read after its lowest byte was written. Not in
    /// <see cref="Live"/>.
    /// </summary>
    public RegisterSet MayBeLive { get; }

    /// <summary>What nothing reads before it is written.</summary>
    public RegisterSet Dead => ~(Live | MayBeLive);

    /// <summary>Why the code behind the place could not be followed to its end (PV9001) or the work was given up (PV9002).</summary>
    public PatchDiagnostic? Undecided { get; }

    /// <summary>The first read of a register on a shortest way.</summary>
    /// <param name="register">A set with one member.</param>
    /// <returns>The read; <see langword="null"/> for a register that is dead.</returns>
    public RegisterUse? FirstUse(RegisterSet register)
    {
        ulong wanted = RegisterParts.Of(register) & _flow.Live.Any;
        RegisterUseKind kind = (wanted & _flow.Live.Read) != 0 ? RegisterUseKind.Instruction
            : (wanted & _flow.Live.Stored) != 0 ? RegisterUseKind.Push
            : (wanted & _flow.Live.Passed) != 0 ? RegisterUseKind.UnknownCode
            : RegisterUseKind.Return;
        return wanted == 0 ? null : Find(register, kind, wanted);
    }

    private RegisterUse Find(RegisterSet register, RegisterUseKind kind, ulong wanted)
    {
        var from = new Dictionary<int, int> { [0] = -1 };
        var queue = new Queue<int>([0]);
        while (queue.TryDequeue(out int index))
        {
            CodeBlock block = _flow.Blocks[index];
            if (block.Last < 0)
            {
                continue;
            }

            foreach ((int at, LiveParts after) in _solver.Walk(_flow, block, _atReturn))
            {
                CodeStep step = _steps[at];
                bool pushes = step.Op == StepOp.Push && step.Register >= 0;
                ulong reads = kind switch
                {
                    RegisterUseKind.Instruction => pushes ? 0 : step.Reads(after.Read),
                    RegisterUseKind.Push => pushes ? step.Use : step.Reads(after.Stored) & ~step.Use,
                    RegisterUseKind.UnknownCode => step.Reads(after.Passed) & ~step.Use,
                    _ => step.Reads(after.Returned) & ~step.Use,
                };
                bool ends = at == block.Last && (wanted & Select(_solver.ArgumentsOf(_flow, block, _atReturn), kind)) != 0;
                bool returns = kind == RegisterUseKind.Return && at == block.Last
                    && (block.Successors.Count == 0 || (step.Flow == StepFlow.Return && (wanted & _atReturn.Any) != 0));
                if ((reads & wanted) != 0 || ends || returns)
                {
                    return new RegisterUse(register, kind, step.Address, PathTo(index, step.Address, from));
                }

                if ((Select(after, kind) & wanted & ~step.Kill) == 0)
                {
                    break;
                }
            }

            foreach (int next in block.Successors.Concat(block.Edges ?? []))
            {
                if ((Select(_flow.Blocks[next].Live, kind) & wanted) != 0 && from.TryAdd(next, index))
                {
                    queue.Enqueue(next);
                }
            }
        }

        return new RegisterUse(register, RegisterUseKind.UnknownCode, Address, [new CodeRun(Address, Address)]);
    }

    private List<CodeRun> PathTo(int index, VirtualAddress read, Dictionary<int, int> from)
    {
        var path = new List<CodeRun>();
        for (int at = index; at >= 0; at = from[at])
        {
            CodeBlock block = _flow.Blocks[at];
            path.Add(new CodeRun(_steps[block.Start].Address, at == index ? read : _steps[block.Last].Address));
        }

        path.Reverse();
        return path;
    }

    private static ulong Select(LiveParts parts, RegisterUseKind kind) => kind switch
    {
        RegisterUseKind.Instruction => parts.Read,
        RegisterUseKind.Push => parts.Stored,
        RegisterUseKind.UnknownCode => parts.Passed,
        _ => parts.Returned,
    };

    /// <summary>
    /// The parts of registers whose lowest byte is read. Where only the rest is, the register was written in part since: what a compiler
    /// then reads whole it narrows later, so nothing is proved either way.
    /// </summary>
    private static ulong ReadWhole(ulong read)
    {
        ulong whole = read & (RegisterParts.Flags | RegisterParts.Vector);
        for (int number = 0; number < 16; number++)
        {
            whole |= (read & RegisterParts.LowByte(number)) != 0 ? RegisterParts.Whole(number) : 0;
        }

        return whole;
    }
}
