using System.Buffers.Binary;
using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>
/// Functions the arena makes itself, so that every slot can hold one whatever its operation is: a body and a return, a save/restore thunk.
/// One for each content, immutable, kept as long as the arena: a thread may have read the slot long ago.
/// </summary>
internal sealed class FunctionStore(ArenaMemory memory, StubAllocator stubs, VectorSave vector)
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, VirtualAddress> _functions = [];
    private readonly Dictionary<ThunkCode, VirtualAddress> _thunks = [];
    private readonly Dictionary<VirtualAddress, VirtualAddress> _far = [];
    private readonly Dictionary<VirtualAddress, VirtualAddress> _slotJumps = [];
    private readonly Dictionary<VirtualAddress, VirtualAddress> _targets = []; // of thunks and far jumps

    /// <summary>Whether thunks can save vector state.</summary>
    public bool SavesVector => vector.Form != VectorSaveForm.None;

    /// <summary>The function for a body that can be one.</summary>
    public bool TryGet(BodyFunction body, out VirtualAddress function, out PatchDiagnostic? error)
    {
        lock (_lock)
        {
            error = null;
            if (_functions.TryGetValue(body.Key, out function))
            {
                return true;
            }

            int length = body.Length;
            if (!stubs.TryTake(length, out function, out error))
            {
                return false;
            }

            if (!body.TryWrite(function, memory.Span(function, length)))
            {
                stubs.Give(function, length);
                error = OutOfReach();
                return false;
            }

            _functions.Add(body.Key, function);
            return true;
        }
    }

    /// <summary>A thunk that saves registers around a target, which it calls by way of a far jump where it does not reach it.</summary>
    public bool TryGetThunk(ThunkCode code, out VirtualAddress thunk, out PatchDiagnostic? error)
    {
        lock (_lock)
        {
            error = null;
            if (_thunks.TryGetValue(code, out thunk))
            {
                return true;
            }

            InlineBody inline = InlineBody.Create(a => code.Write(a, 64, vector));
            if (!BodyBuilder.TryBuild(inline, code.Convention, 64, out AssembledBody? body, out error))
            {
                return false;
            }

            if (!stubs.TryTake(body.Bytes.Length, out thunk, out error))
            {
                return false;
            }

            if (!body.TryWrite(thunk, memory.Span(thunk, body.Bytes.Length)))
            {
                stubs.Give(thunk, body.Bytes.Length);
                bool made = TryGetFar(code.Target, out VirtualAddress far, out error)
                    && TryGetThunk(code with { Target = far }, out thunk, out error);
                if (made)
                {
                    _thunks.Add(code, thunk);
                }

                return made;
            }

            _thunks.Add(code, thunk);
            _targets.Add(thunk, code.Target);
            return true;
        }
    }

    /// <summary>A jump through a slot, for sites whose own call has no room for one.</summary>
    /// <param name="slot">Run address of the slot's word, in the arena.</param>
    /// <param name="jump">Run address of the jump.</param>
    /// <param name="error">No room.</param>
    public bool TryGetSlotJump(VirtualAddress slot, out VirtualAddress jump, out PatchDiagnostic? error)
    {
        const int Length = 6;
        lock (_lock)
        {
            error = null;
            if (_slotJumps.TryGetValue(slot, out jump))
            {
                return true;
            }

            if (!stubs.TryTake(Length, out jump, out error))
            {
                return false;
            }

            Span<byte> bytes = memory.Span(jump, Length);
            bytes[0] = 0xff; // ff 25 disp32: jmp [rip+slot]
            bytes[1] = 0x25;
            BinaryPrimitives.WriteInt32LittleEndian(bytes[2..], checked((int)(slot - (jump + Length))));
            _slotJumps.Add(slot, jump);
            return true;
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

            if (!stubs.TryTake(Length, out jump, out error))
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

    /// <summary>The jump to a target that was made before.</summary>
    public VirtualAddress FarOf(VirtualAddress target)
    {
        lock (_lock)
        {
            return _far[target];
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

    private static PatchDiagnostic OutOfReach() =>
        PatchDiagnostic.Error(DiagnosticCodes.SlotFunction, "a function of the arena can't reach what it refers to") with
        {
            Help = "Reserve the arena near it.",
        };
}
