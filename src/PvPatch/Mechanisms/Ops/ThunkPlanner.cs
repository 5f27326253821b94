using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>
/// Places save/restore thunks in the room a host gives: one for each target and set of registers to save. A thunk pushes what the target
/// destroys and the site does not allow, calls the target, pops, returns.
/// </summary>
/// <remarks>
/// The thunks of the plan this one is made from stay: some of its calls may stand in the image still, and revert must find what was
/// there before them. They are used again where they fit; new ones go where none of them is.
/// </remarks>
internal sealed class ThunkPlanner
{
    private const int Alignment = 16; // a call target on its own fetch line

    private readonly CodeImage _image;
    private readonly AddressRange _room;
    private readonly List<SiteDecision> _inherited = [];
    private readonly Dictionary<ThunkCode, VirtualAddress?> _placed = [];
    private readonly List<(VirtualAddress Address, byte[] Code, PlanOutcome Outcome)> _thunks = [];
    private int _used;

    /// <summary>Begins with the thunks of a previous plan.</summary>
    public ThunkPlanner(CodeImage image, AddressRange room, PatchPlan? previous)
    {
        _image = image;
        _room = room;
        for (int i = 0; previous is not null && previous.MayHaveThunks && i < previous.Count; i++)
        {
            SiteDecision site = previous![i];
            if (site.Action == PatchAction.Thunk)
            {
                _inherited.Add(site);
            }
        }
    }

    /// <summary>
    /// The address of the thunk that is wanted, or nothing where the room is used up or the target out of the thunk's reach.
    /// </summary>
    public VirtualAddress? Place(ThunkCode wanted, string? targetName)
    {
        if (!_placed.TryGetValue(wanted, out VirtualAddress? address))
        {
            address = PlaceNew(wanted, targetName);
            _placed.Add(wanted, address);
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

    private VirtualAddress? PlaceNew(ThunkCode wanted, string? targetName)
    {
        InlineBody body = InlineBody.Create(a => wanted.Write(a, _image.Bitness));
        if (!BodyBuilder.TryBuild(body, wanted.Convention, _image.Bitness, out AssembledBody? assembled, out PatchDiagnostic? error))
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
            Target = wanted.Target,
            TargetName = targetName,
            Detail = wanted.Describe(_image.Bitness),
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
}
