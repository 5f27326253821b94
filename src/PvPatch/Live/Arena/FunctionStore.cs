using System.Buffers.Binary;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>
/// Functions the arena makes itself, so that every slot can hold one whatever its operation is: a body and a return, a save/restore thunk. One for each content,
/// immutable, kept as long as the arena: a thread may have read the slot long ago.
/// </summary>
internal sealed class FunctionStore(ArenaMemory memory)
{
    private readonly Lock _lock = new();
    private readonly StubAllocator _pieces = new(memory);
    private readonly Dictionary<string, VirtualAddress> _functions = [];
    private readonly Dictionary<ThunkRequest, VirtualAddress> _thunks = [];
    private readonly Dictionary<VirtualAddress, VirtualAddress> _far = [];
    private readonly Dictionary<VirtualAddress, VirtualAddress> _targets = []; // of thunks and far jumps

    /// <summary>A function that does what a body does, and returns unless the body leaves for good.</summary>
    public bool TryGet(AssembledBody? body, out VirtualAddress function, out PatchDiagnostic? error)
    {
        lock (_lock)
        {
            error = null;
            string key = body is null ? "" : CodeContent.KeyOf(body);
            if (_functions.TryGetValue(key, out function))
            {
                return true;
            }

            int length = body?.Bytes.Length ?? 0;
            if (!_pieces.TryTake(length + 1, out function, out error))
            {
                return false;
            }

            Span<byte> bytes = memory.Span(function, length + 1);
            if (body is not null && !new CodeContent(body).TryWrite(function, bytes))
            {
                _pieces.Give(function, length + 1);
                error = OutOfReach(body.Fixups[0].Target);
                return false;
            }

            if (body is not { EndsControlFlow: true })
            {
                bytes[length] = 0xc3; // ret
            }

            _functions.Add(key, function);
            return true;
        }
    }

    /// <summary>A thunk that saves registers around a target.</summary>
    public bool TryGetThunk(ThunkRequest request, out VirtualAddress thunk, out PatchDiagnostic? error)
    {
        lock (_lock)
        {
            error = null;
            if (_thunks.TryGetValue(request, out thunk))
            {
                return true;
            }

            InlineBody code = InlineBody.Create(a => ThunkCode.Write(a, request, 64));
            if (!BodyBuilder.TryBuild(code, request.Convention, 64, out AssembledBody? body, out error))
            {
                return false;
            }

            if (!_pieces.TryTake(body.Bytes.Length, out thunk, out error))
            {
                return false;
            }

            if (!new CodeContent(body).TryWrite(thunk, memory.Span(thunk, body.Bytes.Length)))
            {
                _pieces.Give(thunk, body.Bytes.Length);
                error = OutOfReach(request.Target);
                return false;
            }

            _thunks.Add(request, thunk);
            _targets.Add(thunk, request.Target);
            return true;
        }
    }

    /// <summary>Whether functions were written where other code had been, since the last time this was asked.</summary>
    public bool TakeReused()
    {
        lock (_lock)
        {
            return _pieces.TakeReused();
        }
    }

    /// <summary>A jump to a target that the arena's code does not reach with a rel32.</summary>
    public bool TryGetFar(VirtualAddress target, out VirtualAddress jump, out PatchDiagnostic? error)
    {
        const int Length = 14;
        lock (_lock)
        {
            error = null;
            if (_far.TryGetValue(target, out jump))
            {
                return true;
            }

            if (!_pieces.TryTake(Length, out jump, out error))
            {
                return false;
            }

            // ff 25 00 00 00 00: jmp [rip+0], and the eight bytes behind it. No register is free to hold the address.
            Span<byte> bytes = memory.Span(jump, Length);
            ((ReadOnlySpan<byte>)[0xff, 0x25, 0, 0, 0, 0]).CopyTo(bytes);
            BinaryPrimitives.WriteUInt64LittleEndian(bytes[6..], target.Value);
            _far.Add(target, jump);
            _targets.Add(jump, target);
            return true;
        }
    }

    /// <summary>What a thunk or far jump leads to; of any other address that address.</summary>
    public VirtualAddress TargetOf(VirtualAddress entry)
    {
        lock (_lock)
        {
            while (_targets.TryGetValue(entry, out VirtualAddress target))
            {
                entry = target;
            }

            return entry;
        }
    }

    /// <summary>A function's way out of its caller's frame: whether a body reads or writes memory through the stack pointer, which is elsewhere in a function.</summary>
    public static bool DependsOnStackDepth(AssembledBody body)
    {
        var decoder = Iced.Intel.Decoder.Create(64, body.Bytes.ToArray());
        int depth = 0;
        while (decoder.IP < (ulong)body.Bytes.Length)
        {
            decoder.Decode(out Iced.Intel.Instruction instruction);
            bool call = instruction.FlowControl is Iced.Intel.FlowControl.Call or Iced.Intel.FlowControl.IndirectCall;
            depth -= call ? 0 : instruction.StackPointerIncrement;
            if (depth < 0 || instruction.MemoryBase == Iced.Intel.Register.RSP || instruction.MemoryIndex == Iced.Intel.Register.RSP)
            {
                return true;
            }
        }

        return false;
    }

    private static PatchDiagnostic OutOfReach(VirtualAddress target) =>
        PatchDiagnostic.Error(DiagnosticCodes.SlotFunction, "a function of the arena can't reach what it refers to") with
        {
            Address = target,
            Help = "Reserve the arena near it.",
        };
}
