using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <content>The kinds of site there are, how many of each, and what their slots' functions may destroy for them.</content>
public sealed unsafe partial class SlotTable
{
    // What many sites share, slot, budget, clobbers and traits, has a number: the site's kind.
    private readonly Lock _kindLock = new();
    private readonly Dictionary<ulong, int> _kindNumbers = [];
    private readonly List<CallConvention> _conventions = []; // of sites that have operands of their own
    private readonly RegisterSet[] _allowed; // by slot
    private PatchSite[] _kinds = new PatchSite[16];
    private int[] _siteCounts = new int[16]; // by kind
    private LiveBody?[] _originals = [];

    /// <summary>Number of kinds of site there are so far.</summary>
    internal int KindCount { get; private set; }

    /// <summary>A kind of site by its number, as a site at address 0.</summary>
    internal PatchSite KindOf(int number) => _kinds[number];

    /// <summary>What every site of a slot allows to be destroyed; sites of retired blocks too, until no thread can be in them.</summary>
    internal RegisterSet AllowedBy(int slot) => _allowed[slot];

    /// <summary>The number of a site's kind; a new one where there is none yet.</summary>
    internal int NumberOf(PatchSite site)
    {
        lock (_kindLock)
        {
            if (_kindNumbers.TryGetValue(site.DecisionKey, out int number))
            {
                return number;
            }

            if (KindCount == _kinds.Length)
            {
                Array.Resize(ref _siteCounts, KindCount * 2);
                Array.Resize(ref _kinds, KindCount * 2);
            }

            number = KindCount;
            _kinds[number] = site.At(VirtualAddress.Zero);
            _kindNumbers.Add(site.DecisionKey, number);
            KindCount++;
            return number;
        }
    }

    /// <summary>The number of a convention that sites have operands by.</summary>
    /// <exception cref="PatchException">There are too many (PV8045).</exception>
    internal int NumberOf(CallConvention convention)
    {
        lock (_kindLock)
        {
            int number = _conventions.IndexOf(convention) + 1;
            if (number == 0)
            {
                if (_conventions.Count == PatchSite.MostConventions)
                {
                    throw new PatchException(PatchDiagnostic.Error(
                        DiagnosticCodes.SiteArgument, "too many conventions say where sites have their operands") with
                    {
                        Found = $"{PatchSite.MostConventions} so far",
                        Help = "Keep and reuse the conventions.",
                    });
                }

                _conventions.Add(convention);
                number = _conventions.Count;
            }

            return number;
        }
    }

    /// <summary>The slot as sites of a kind see it: with their convention.</summary>
    internal OpSlot SlotOf(PatchSite kind)
    {
        OpSlot slot = Layout[kind.Slot];
        if (kind.Convention == 0)
        {
            return slot;
        }

        lock (_kindLock)
        {
            return slot.With(_conventions[kind.Convention - 1]);
        }
    }

    /// <summary>The thunk by which sites of a kind with operands of their own call what their slot holds.</summary>
    internal ThunkCode ThunkOf(PatchSite kind, VirtualAddress slotJump)
    {
        CallConvention convention = Layout[kind.Slot].Convention;
        var thunk = new ThunkCode(slotJump, RegisterSet.None, convention) { From = SlotOf(kind).Convention };
        RegisterSet saves = (convention.DestroyedBy(64) | thunk.Writes(64)).Except(kind.Clobbers);
        return thunk with { Saves = Arena.Functions.SavesVector ? saves : saves.Except(RegisterSet.Vector) };
    }

    /// <summary>What a slot's function may destroy for the sites of a kind.</summary>
    private RegisterSet AllowedAt(PatchSite kind) =>
        kind.Convention == 0 ? kind.Clobbers : kind.Clobbers | ThunkOf(kind, default).Saves;

    /// <summary>Each kind of site as it was emitted: what sites are reverted to.</summary>
    internal LiveBody OriginalOf(int kind)
    {
        if (kind >= _originals.Length || _originals[kind] is not LiveBody body)
        {
            body = LiveBody.Indirect(PatchReason.None, null).WithBytesOf(this, _kinds[kind]).ReadyFor(_kinds[kind]);
            Array.Resize(ref _originals, Math.Max(KindCount, _originals.Length));
            _originals[kind] = body;
        }

        return body;
    }

    /// <summary>Takes a block's sites out of account, when no thread can be in them any more or none ever was.</summary>
    internal void Forget(CodeBlock block)
    {
        lock (_kindLock)
        {
            foreach (ref SiteRecord record in block.Records.AsSpan())
            {
                if (--_siteCounts[record.Kind] == 0)
                {
                    Widen(_kinds[record.Kind].Slot);
                }
            }
        }
    }

    /// <summary>Counts a block's sites.</summary>
    /// <returns>Whether a slot's sites allow less together than before.</returns>
    private bool Count(CodeBlock block)
    {
        lock (_kindLock)
        {
            bool narrows = false;
            foreach (ref SiteRecord record in block.Records.AsSpan())
            {
                if (_siteCounts[record.Kind]++ == 0)
                {
                    PatchSite kind = _kinds[record.Kind];
                    RegisterSet allowed = _allowed[kind.Slot] & AllowedAt(kind);
                    narrows |= allowed != _allowed[kind.Slot];
                    _allowed[kind.Slot] = allowed;
                }
            }

            return narrows;
        }
    }

    private void Widen(int slot)
    {
        RegisterSet allowed = RegisterSet.All;
        for (int kind = 0; kind < KindCount; kind++)
        {
            if (_siteCounts[kind] > 0 && _kinds[kind].Slot == slot)
            {
                allowed &= AllowedAt(_kinds[kind]);
            }
        }

        _allowed[slot] = allowed;
    }
}
