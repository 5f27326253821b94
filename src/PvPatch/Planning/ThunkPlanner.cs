using System.Globalization;
using PvPatch.Encoding;
using PvPatch.Images;
using PvPatch.Ops;
using PvPatch.Plans;

namespace PvPatch.Planning;

/// <summary>
/// Places save/restore thunks in the room a host gives: one for each target and set of registers to save. A thunk pushes what the target destroys
/// and the site does not allow, calls the target, pops, returns.
/// </summary>
internal sealed class ThunkPlanner
{
    private const int Alignment = 16; // a call target on its own fetch line

    private readonly CodeImage _image;
    private readonly ThunkRoom _room;
    private readonly Dictionary<ThunkRequest, VirtualAddress?> _placed = [];
    private readonly List<(VirtualAddress Address, byte[] Code, PlanOutcome Outcome)> _thunks = [];
    private int _used;

    public ThunkPlanner(CodeImage image, ThunkRoom room)
    {
        _image = image;
        _room = room;
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
        foreach ((VirtualAddress address, byte[] code, PlanOutcome outcome) in _thunks)
        {
            _image.TryGetBytes(address, code.Length, out Span<byte> old);
            plan.Add(address, old, code, outcome);
        }
    }

    private VirtualAddress? PlaceNew(ThunkRequest request, string? targetName)
    {
        int start = checked(_used + Padding(_room.Address + _used));
        InlineBody body = InlineBody.Create(a => ThunkCode.Write(a, request, _image.Bitness));
        if (!BodyBuilder.TryBuild(body, request.Convention, _image.Bitness, out AssembledBody? assembled, out PatchDiagnostic? error))
        {
            throw new PatchException(error);
        }

        int length = assembled.Bytes.Length;
        VirtualAddress address = _room.Address + start;
        byte[] code = new byte[length];
        if (start + length > _room.Length || !CodeTemplate.Create(assembled, length, NopStyle.Default(_image.Bitness)).TryWrite(address, code))
        {
            return null;
        }

        _used = start + length;
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

    private static int Padding(VirtualAddress address) => (int)(unchecked(0 - address.Value) & (Alignment - 1));
}
