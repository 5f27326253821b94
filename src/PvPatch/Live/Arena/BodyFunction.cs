using System.Buffers.Binary;
using Iced.Intel;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>
/// An inline body as a function that a slot can hold. Called, it finds a return address on the stack that is not there in a site; what
/// depends on that is moved or refused. Where code jumps to the slot, the stack is as in a site and the body stands as it is.
/// </summary>
/// <remarks>
/// A body that jumps out, in a site and as a function:
/// <code>
/// site       29 7b 18              sub [rbx+24],edi
///            0f 88 dd dd dd dd     js leave
///
/// function   29 7b 18              sub [rbx+24],edi
///            0f 88 dd dd dd dd     js exit
///            c3                    ret
/// exit       48 8d 64 24 08        lea rsp,[rsp+8]        the return address goes, flags and registers stay
///            e9 dd dd dd dd        jmp leave
/// </code>
/// A body that calls is put between <c>lea rsp,[rsp-40]</c> and <c>lea rsp,[rsp+40]</c>: the return address and 40 bytes keep the stack
/// aligned to 16, and 32 of them are what a callee of Windows' convention owns.
/// </remarks>
internal sealed class BodyFunction
{
    private const int Room = 40;
    private const int MoveLength = 5;
    private const int JumpLength = 5;

    private readonly AssembledBody? _body;
    private readonly bool[] _exits; // for each fix-up of the body
    private readonly bool _calls;

    /// <summary>Reads a body.</summary>
    /// <param name="body">The body; <see langword="null"/> for one that does nothing.</param>
    /// <param name="called">Whether the function is called, and not jumped to.</param>
    public BodyFunction(AssembledBody? body, bool called)
    {
        _body = body;
        _exits = new bool[body?.Fixups.Count ?? 0];
        Key = body is null ? "" : (called ? "call " : "jump ") + body.ContentKey();
        if (body is not null && called)
        {
            List<Instruction> instructions = [.. Decoder.Create(64, body.Bytes.ToArray())]; // what leads out is told by its fix-up
            _calls = instructions.Exists(static i => i.Mnemonic == Mnemonic.Call);
            Unfit = Walk(instructions);
        }
    }

    /// <summary>What makes two functions the same.</summary>
    public string Key { get; }

    /// <summary>Why the body can't be a function.</summary>
    public string? Unfit { get; }

    /// <summary>Whether it has a way out that does not return.</summary>
    public bool JumpsOut => Array.IndexOf(_exits, true) >= 0;

    /// <summary>Bytes of the function.</summary>
    public int Length => Start + (_body?.Bytes.Length ?? 0) + EndLength + _exits.Count(static e => e) * (MoveLength + JumpLength);

    private int Start => _calls ? MoveLength : 0;

    private int EndLength => _body is { EndsControlFlow: true } ? 0 : Start + 1;

    /// <summary>Writes the function.</summary>
    /// <param name="address">Its run address.</param>
    /// <param name="code">Its bytes.</param>
    /// <returns>Whether everything it refers to is in reach.</returns>
    public bool TryWrite(VirtualAddress address, Span<byte> code)
    {
        int length = _body?.Bytes.Length ?? 0;
        if (_calls)
        {
            MoveStack(code, -Room);
        }

        if (_body is not null && !_body.TryWrite(address + Start, code.Slice(Start, length)))
        {
            return false;
        }

        int at = Start + length;
        if (EndLength > 0)
        {
            if (_calls)
            {
                MoveStack(code[at..], Room);
            }

            at += EndLength;
            code[at - 1] = 0xc3; // ret
        }

        for (int i = 0; i < _exits.Length; i++)
        {
            if (!_exits[i])
            {
                continue;
            }

            CodeFixup fixup = _body!.Fixups[i];
            BinaryPrimitives.WriteInt32LittleEndian(code[(Start + fixup.Offset)..], at - (Start + fixup.InstructionEnd));
            MoveStack(code[at..], sizeof(ulong) + (_calls ? Room : 0));
            at += MoveLength;
            if (!Displacement.TryGet(address + at + JumpLength, fixup.Target, 64, out int displacement))
            {
                return false;
            }

            code[at] = 0xe9; // jmp rel32
            BinaryPrimitives.WriteInt32LittleEndian(code[(at + 1)..], displacement);
            at += JumpLength;
        }

        return true;
    }

    /// <summary>48 8d 64 24 disp8: lea rsp,[rsp+bytes]. add and sub would change the flags.</summary>
    private static void MoveStack(Span<byte> code, int bytes)
    {
        ReadOnlySpan<byte> lea = [0x48, 0x8d, 0x64, 0x24, (byte)bytes];
        lea.CopyTo(code);
    }

    /// <summary>
    /// Follows every way through the body with the number of bytes pushed on it, which is the same on all ways to an instruction
    /// (<see cref="BodyFlow"/>).
    /// </summary>
    private string? Walk(List<Instruction> instructions)
    {
        var pushed = new Dictionary<ulong, int> { [0] = 0 };
        var ways = new Stack<int>([0]);
        while (ways.TryPop(out int index))
        {
            Instruction instruction = instructions[index];
            int before = pushed[instruction.IP];
            bool isCall = instruction.Mnemonic == Mnemonic.Call;
            int after = before - (isCall ? 0 : instruction.StackPointerIncrement);
            if (WhyUnfit(instruction, after) is string why)
            {
                return why;
            }

            void Go(ulong to)
            {
                int next = instructions.FindIndex(i => i.IP == to);
                if (next >= 0 && pushed.TryAdd(to, after))
                {
                    ways.Push(next);
                }
            }

            if (BodyBuilder.IsNearBranch(instruction) && !isCall)
            {
                int exit = Array.FindIndex(_body!.Fixups.ToArray(), f => f.InstructionEnd == instruction.NextIP);
                if (exit < 0)
                {
                    Go(instruction.NearBranchTarget);
                }
                else if (after != 0)
                {
                    return "its body jumps out with the stack pointer moved";
                }
                else
                {
                    _exits[exit] = true;
                }
            }

            if (instruction.FlowControl != FlowControl.UnconditionalBranch)
            {
                Go(instruction.NextIP);
            }
        }

        return null;
    }

    private static string? WhyUnfit(in Instruction instruction, int pushed)
    {
        if (instruction.FlowControl == FlowControl.Return)
        {
            return "its body returns or leaves for another mode, and the function's return address would still be on the stack";
        }

        if (instruction.FlowControl == FlowControl.IndirectBranch)
        {
            return "its body leaves by an indirect jump, and the function's return address would still be on the stack";
        }

        if (pushed < 0)
        {
            return "its body pops what it has not pushed, which is the return address in a function";
        }

        bool usesPointer = IsStackPointer(instruction.MemoryBase) || IsStackPointer(instruction.MemoryIndex)
            || instruction.Mnemonic is Mnemonic.Enter or Mnemonic.Leave;
        for (int i = 0; i < instruction.OpCount; i++)
        {
            usesPointer |= instruction.GetOpKind(i) == OpKind.Register && IsStackPointer(instruction.GetOpRegister(i));
        }

        return usesPointer ? "its body uses the stack pointer's value, which is another one in a function" : null;
    }

    private static bool IsStackPointer(Register register) => register.GetFullRegister() == Register.RSP;
}
