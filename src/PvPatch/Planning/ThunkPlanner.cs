using System.Globalization;
using Iced.Intel;
using PvPatch.Encoding;
using PvPatch.Images;
using PvPatch.Ops;
using PvPatch.Plans;
using PvPatch.Sites;
using static Iced.Intel.AssemblerRegisters;

namespace PvPatch.Planning;

/// <summary>
/// Places save/restore thunks in the room a host gives: one for each target and set of registers to save. A thunk pushes what the target destroys
/// and the site does not allow, calls the target, pops, returns.
/// </summary>
/// <remarks>
/// The thunks of the plan this one is made from stay: some of its calls may stand in the image still, and revert must find what was
/// there before them. They are used again where they fit; new ones go where none of them is.
/// </remarks>
internal sealed class ThunkPlanner
{
    private const int Alignment = 16; // a call target on its own fetch line

    private readonly CodeImage _image;
    private readonly ThunkRoom _room;
    private readonly List<SiteDecision> _inherited = [];
    private readonly Dictionary<ThunkRequest, VirtualAddress?> _placed = [];
    private readonly List<(VirtualAddress Address, byte[] Code, PlanOutcome Outcome)> _thunks = [];
    private int _used;

    /// <summary>Begins with the thunks of a previous plan.</summary>
    public ThunkPlanner(CodeImage image, ThunkRoom room, PatchPlan? previous)
    {
        _image = image;
        _room = room;
        for (int i = 0; i < (previous?.Count ?? 0); i++)
        {
            SiteDecision site = previous![i];
            if (site.Action == PatchAction.Thunk)
            {
                _inherited.Add(site);
            }
        }
    }

    /// <summary>The address of the thunk for a request, or nothing where the room is used up or the target out of the thunk's reach.</summary>
    public VirtualAddress? Place(ThunkRequest request, string? targetName)
    {
        if (!_placed.TryGetValue(request, out VirtualAddress? address))
        {
            address = PlaceNew(request, targetName);
            _placed.Add(request, address);
        }

        return address;
    }

    /// <summary>Adds the thunks to the plan, as sites of their own.</summary>
    public void AddTo(PlanBuilder plan)
    {
        foreach (SiteDecision thunk in _inherited)
        {
            plan.Add(thunk.Address, thunk.OldBytes, thunk.NewBytes, thunk.Outcome);
        }

        foreach ((VirtualAddress address, byte[] code, PlanOutcome outcome) in _thunks)
        {
            _image.TryGetBytes(address, code.Length, out Span<byte> old);
            plan.Add(address, old, code, outcome);
        }
    }

    private VirtualAddress? PlaceNew(ThunkRequest request, string? targetName)
    {
        InlineBody body = InlineBody.Create(a => Write(a, request, _image.Bitness));
        if (!BodyBuilder.TryBuild(body, request.Convention, _image.Bitness, out AssembledBody? assembled, out PatchDiagnostic? error))
        {
            throw new PatchException(error);
        }

        CodeTemplate template = CodeTemplate.Create(assembled, assembled.Bytes.Length, NopStyle.Default(_image.Bitness));
        byte[] code = new byte[assembled.Bytes.Length];
        foreach (SiteDecision thunk in _inherited)
        {
            if (thunk.Length == code.Length && template.TryWrite(thunk.Address, code) && thunk.NewBytes.SequenceEqual(code))
            {
                return thunk.Address;
            }
        }

        int start = FindRoom(code.Length);
        VirtualAddress address = _room.Address + start;
        if (start > _room.Length - code.Length || !template.TryWrite(address, code))
        {
            return null;
        }

        _used = start + code.Length;
        _thunks.Add((address, code, new PlanOutcome
        {
            Label = "thunk",
            Action = PatchAction.Thunk,
            Target = request.Target,
            TargetName = targetName,
            Detail = string.Create(CultureInfo.InvariantCulture, $"saves {request.Saves.ToString(_image.Bitness)}"),
        }));
        return address;
    }

    /// <summary>Where the next thunk would begin, in bytes from the room's start: behind those there are.</summary>
    private int FindRoom(int length)
    {
        int start = checked(_used + Padding(_room.Address + _used));
        foreach (SiteDecision thunk in _inherited) // in order of address
        {
            long offset = thunk.Address - _room.Address;
            if (offset < (long)start + length && offset + thunk.Length > start)
            {
                start = (int)offset + thunk.Length;
                start = checked(start + Padding(_room.Address + start));
            }
        }

        return start;
    }

    private static int Padding(VirtualAddress address) => (int)(unchecked(0 - address.Value) & (Alignment - 1));

    private static void Write(Assembler a, ThunkRequest request, int bitness)
    {
        int[] saved = [.. Enumerable.Range(0, 16).Where(n => n != 4 && request.Saves.Contains(RegisterSet.General(n)))];
        bool flags = request.Saves.Contains(RegisterSet.Flags);
        foreach (int number in saved)
        {
            Push(a, number, bitness);
        }

        if (flags)
        {
            PushFlags(a, bitness);
        }

        // The stack was aligned for the site's own call, so it is off by one word here; the target expects the same. Windows
        // callees also own 32 bytes above their return address. lea, because add would change the flags.
        int word = bitness / 8;
        int pushed = saved.Length + (flags ? 1 : 0);
        int room = bitness == 64 ? (request.Convention == CallingConvention.WindowsX64 ? 32 : 0) + (pushed % 2 == 0 ? word : 0) : 0;
        Move(a, -room, bitness);
        a.call(request.Target.Value);
        Move(a, room, bitness);
        if (flags)
        {
            KeepInterruptFlag(a, bitness);
            PopFlags(a, bitness);
        }

        foreach (int number in saved.Reverse())
        {
            Pop(a, number, bitness);
        }

        a.ret();
    }

    private static void Move(Assembler a, int bytes, int bitness)
    {
        if (bytes != 0 && bitness == 64)
        {
            a.lea(rsp, __[rsp + bytes]);
        }
    }

    private static void Push(Assembler a, int number, int bitness) =>
        a.AddInstruction(bitness == 64
            ? Instruction.Create(Code.Push_r64, Register.RAX + number)
            : Instruction.Create(Code.Push_r32, Register.EAX + number));

    private static void Pop(Assembler a, int number, int bitness) =>
        a.AddInstruction(bitness == 64
            ? Instruction.Create(Code.Pop_r64, Register.RAX + number)
            : Instruction.Create(Code.Pop_r32, Register.EAX + number));

    /// <summary>
    /// Puts the interrupt flag as it is now into the saved flags on the stack: in ring 0 popf would else undo the cli or sti that the target
    /// may be there for. A register is borrowed for it; the flags changed here are about to be restored.
    /// </summary>
    private static void KeepInterruptFlag(Assembler a, int bitness)
    {
        const int Interrupt = 0x200; // IF, bit 9
        Push(a, 0, bitness);
        PushFlags(a, bitness);
        Pop(a, 0, bitness);
        if (bitness == 64)
        {
            a.and(eax, Interrupt); // clears the upper half too
            a.and(__qword_ptr[rsp + 8], ~Interrupt); // 0: the borrowed register, 8: the saved flags
            a.or(__[rsp + 8], rax);
        }
        else
        {
            a.and(eax, Interrupt);
            a.and(__dword_ptr[esp + 4], ~Interrupt);
            a.or(__[esp + 4], eax);
        }

        Pop(a, 0, bitness);
    }

    private static void PushFlags(Assembler a, int bitness)
    {
        if (bitness == 64)
        {
            a.pushfq();
        }
        else
        {
            a.pushfd();
        }
    }

    private static void PopFlags(Assembler a, int bitness)
    {
        if (bitness == 64)
        {
            a.popfq();
        }
        else
        {
            a.popfd();
        }
    }
}
