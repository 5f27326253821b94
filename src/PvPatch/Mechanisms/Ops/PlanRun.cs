using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Microsoft.Extensions.Logging;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>
/// The making of one plan: asks for each kind of site once what to do, then walks the sites and lays down an entry for each. Sites whose
/// decision and form are known go a way without branches on either; the first of a form and whatever is odd goes the long way.
/// </summary>
internal sealed class PlanRun
{
    private readonly CodeImage _image;
    private readonly SiteTable _sites;
    private readonly Backend _backend;
    private readonly PlanOptions _options;
    private readonly DiagnosticList _found;
    private readonly ThunkPlanner _thunks;
    private readonly PlanBuilder _plan;
    private readonly PlanEntry[] _entries;
    private readonly KindDecisions _made;
    private readonly OriginalBytes _originals;
    private bool _mayBeOutOfReach;

    /// <summary>How many sites more change than would if every one followed the decision for its kind.</summary>
    private int _changes;

    public PlanRun(
        CodeImage image, SiteTable sites, Backend backend, PlanOptions options, KindDecisions made, ILogger planLogger,
        DiagnosticList found)
    {
        _image = image;
        _sites = sites;
        _backend = backend;
        _options = options;
        _found = found;
        _made = made;
        AddressRange room = options.Thunks is AddressRange given ? CheckRoom(given) : default;
        _thunks = new ThunkPlanner(image, room, options.Previous);
        _plan = new PlanBuilder(
            backend.Name, options.Rules.Name, image, made.Forms, sites)
        { Previous = options.Previous, Logger = planLogger };
        _entries = _plan.Entries;
        _originals = new OriginalBytes(backend, options, made.Reader, image.Bitness, found);
    }

    /// <summary>Makes the plan; <see langword="null"/> where errors were found.</summary>
    public PatchPlan? Execute()
    {
        if (_options.Previous is PatchPlan previous && previous.Bitness != _image.Bitness)
        {
            _found.Add(PatchDiagnostic.Error(DiagnosticCodes.WrongPreviousPlan, "the previous plan is for code of another bitness") with
            {
                Found = $"{previous.Bitness}",
                Expected = $"{_image.Bitness}",
            });
            return null;
        }

        ConventionContract.CheckTargets(_backend, _image, _found);
        _made.Decide(_sites, _thunks);
        _mayBeOutOfReach = MayBeOutOfReach();
        var window = new ImageWindow(_image);
        ReadOnlySpan<PatchSite> sites = _sites.Sites;
        int end = 0;
        for (int i = 0; ; i++)
        {
            end = i < end ? end : window.EndOf(sites, i);
            i = PlanKnown(i, end, window);
            if (i == sites.Length)
            {
                break;
            }

            ref readonly PatchSite site = ref sites[i];
            if (window.Reach(site.Address, site.Budget, out Span<byte> there))
            {
                PlanAny(i, site, there);
                continue;
            }

            _found.Add(PatchDiagnostic.Error(DiagnosticCodes.SiteOutsideImage, "the site lies outside every segment of the image") with
            {
                SiteIndex = i,
                Address = site.Address,
                Found = $"{site.Address}+{site.Budget}",
                Expected = _image.ToString(),
            });
        }

        if (_found.HasErrors)
        {
            return null;
        }

        _plan.AddChanges(_made.Changes + _changes);
        _thunks.AddTo(_plan);
        ReportMissing();
        return _plan.Build();
    }

    /// <summary>
    /// Plans sites from <paramref name="index"/> on as far as all about them is known; the index of the first that is not done.
    /// </summary>
    private unsafe int PlanKnown(int index, int end, in ImageWindow window)
    {
        if (_originals.ChecksEachCall || _mayBeOutOfReach)
        {
            return PlanEach(index, end, ref window.First, window.Start);
        }

        fixed (byte* first = window.Bytes)
        fixed (PatchSite* sites = _sites.Sites)
        fixed (int* kinds = _sites.KindOf)
        fixed (WalkedKind* walked = _made.Walked)
        fixed (OldForm* known = _made.Reader.Known)
        fixed (PlanEntry* entries = _entries)
        {
            PatchSite* reached = PlanAll(
                sites + index, sites + end, kinds + index, walked, known, entries + index, unchecked(first - window.Start));
            return (int)(reached - sites);
        }
    }

    /// <summary>
    /// The loop over sites of which nothing has to be known but their kind and form. It calls nothing, so that all it works with stays in
    /// registers.
    /// </summary>
    /// <remarks>
    /// Optimised when it is first called: a plan is most often made once. <paramref name="origin"/> is where the byte of run address 0 would
    /// be. The arrays of kinds and entries are as long as the table; a kind's number is below the number of kinds.
    /// </remarks>
    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    private static unsafe PatchSite* PlanAll(
        PatchSite* site, PatchSite* end, int* kinds, WalkedKind* walked, OldForm* known, PlanEntry* entry, byte* origin)
    {
        for (; site < end; site++, kinds++, entry++)
        {
            WalkedKind* kind = walked + *kinds;
            Vector128<byte> there = Vector128.Load(origin + site->Address.Value);
            OldForm* form = known + kind->FirstForm;
            if (!form->Matches(there))
            {
                int way = 1;
                while (way < SiteFormReader.Ways && !form[way].Matches(there))
                {
                    way++;
                }

                if (way == SiteFormReader.Ways)
                {
                    break;
                }

                form += way;
            }

            PlanEntry.Store(ref *entry, site->Address.Value, form->FieldOf(there), form->Number | kind->NewForm);
        }

        return site;
    }

    /// <summary>
    /// The loop over sites each of which is looked at: its bytes may be those of the previous plan, its call goes through a slot, its
    /// target may be out of reach.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    private int PlanEach(int index, int end, ref byte first, ulong start)
    {
        bool looksAtReach = _mayBeOutOfReach;
        ReadOnlySpan<PatchSite> sites = _sites.Sites;
        ref int kinds = ref MemoryMarshal.GetArrayDataReference(_sites.KindOf);
        ref WalkedKind walked = ref MemoryMarshal.GetArrayDataReference(_made.Walked);
        ref NewForm news = ref MemoryMarshal.GetArrayDataReference(_made.Forms.News);
        ref PlanEntry entries = ref MemoryMarshal.GetArrayDataReference(_entries);
        SiteFormReader forms = _made.Reader;
        for (; index < end; index++)
        {
            ulong address = sites[index].Address.Value;
            ref readonly WalkedKind kind = ref Unsafe.Add(ref walked, Unsafe.Add(ref kinds, index));
            Vector128<byte> there = Vector128.LoadUnsafe(ref Unsafe.Add(ref first, (nint)(address - start)));
            if (kind.FirstForm == 0 || !_originals.TryUndo(address, sites[index].Budget, there, out there))
            {
                break;
            }

            ref readonly OldForm form = ref forms.Find(there, sites[index].Budget);
            if (Unsafe.IsNullRef(in form))
            {
                break;
            }

            if (looksAtReach)
            {
                ref readonly NewForm wanted = ref Unsafe.Add(ref news, kind.NewForm >>> 16);
                long distance = unchecked((long)(wanted.Origin - address));
                // & and not &&: a branch on whether there is a fix-up could not be foretold
                if (wanted.HasDistance & distance != (int)distance)
                {
                    break;
                }
            }

            int field = form.FieldOf(there);
            if (!_originals.IsRightCall(sites[index], form, field))
            {
                break;
            }

            PlanEntry.Store(ref Unsafe.Add(ref entries, index), address, field, form.Number | kind.NewForm);
        }

        return index;
    }

    /// <summary>Whether some target is out of reach of the table's first or last site: of no site between them, if not.</summary>
    private bool MayBeOutOfReach()
    {
        ReadOnlySpan<PatchSite> sites = _sites.Sites;
        if (_image.Bitness == 32 || sites.IsEmpty)
        {
            return false;
        }

        // The distances farthest up and down. A target that is near by the way around the address space's end counts as far: the look at
        // each finds that it is not.
        (ulong lowest, ulong highest) = _made.Origins;
        return (Int128)highest - sites[0].Address.Value > int.MaxValue || (Int128)lowest - sites[^1].Address.Value < int.MinValue;
    }

    private void PlanAny(int index, in PatchSite site, ReadOnlySpan<byte> there)
    {
        Decision decision = _made.Decisions[_sites.KindOf[index]];
        _changes -= _made.ChangesOf(decision);
        if (decision.Failed is PatchDiagnostic failed)
        {
            _found.Add(failed with { SiteIndex = index, Address = site.Address });
            return;
        }

        Span<byte> original = stackalloc byte[PatchSite.MaxBudget];
        original = original[..site.Budget];
        there.CopyTo(original);
        if (!_originals.Check(index, site, original, out bool isCall))
        {
            return;
        }

        int outcome = decision.Outcome;
        int form = decision.Form;
        Span<byte> bytes = stackalloc byte[PatchSite.MaxBudget];
        bytes = bytes[..site.Budget];
        if (decision.Template is null)
        {
            original.CopyTo(bytes);
        }
        else if (!isCall && _options.Rules.RequiresIndirectCall)
        {
            outcome = _made.LeftAlone(decision, PatchReason.NotACall);
            original.CopyTo(bytes);
        }
        else if (!decision.Template.TryWrite(site.Address, bytes))
        {
            outcome = _made.LeftAlone(decision, PatchReason.OutOfReach);
            original.CopyTo(bytes);
        }

        if (original.SequenceEqual(bytes))
        {
            form = _made.Forms.Kept(outcome);
        }

        if (form >= 0 && site.Budget <= SiteBytes.MaxLength)
        {
            Vector128<byte> vector = SiteBytes.Pad(original);
            ref readonly OldForm old = ref _made.Reader.Find(vector, site.Budget);
            if (!Unsafe.IsNullRef(in old))
            {
                PlanEntry.Store(ref _entries[index], site.Address.Value, old.FieldOf(vector), old.Number | form << 16);
                _changes += _made.Forms.News[form].Changes;
                return;
            }
        }

        _entries[index] = _plan.Overflow(site.Address.Value, original, bytes, outcome);
    }

    private void ReportMissing()
    {
        if (!_made.SomeAreMissing)
        {
            return;
        }

        var reported = new HashSet<int>();
        for (int kind = 0; kind < _made.Decisions.Length; kind++)
        {
            PatchSite site = _sites.Kinds[kind];
            if (!_made.Decisions[kind].IsMissing || !reported.Add(site.Slot))
            {
                continue;
            }

            _plan.AddDiagnostic(PatchDiagnostic.Warning(
                DiagnosticCodes.MissingOperation,
                $"the backend {_backend.Name} has no operation for {_backend.Layout[site.Slot]}: its sites trap, or call BUG by rules "
                    + $"that do") with
            {
                SiteIndex = _sites.FirstOfKind[kind],
                Address = site.Address,
                Help = "Give the slot an operation, or a nop if nothing is to be done.",
            });
        }
    }

    private AddressRange CheckRoom(AddressRange room)
    {
        bool bad = room.Length > int.MaxValue || _image.Find(room.Address, (int)room.Length) is null
            || (room.Length > 0 && _sites.Overlaps(room.Address, (int)room.Length));
        return !bad ? room : throw new PatchException(
            PatchDiagnostic.Error(DiagnosticCodes.ThunkArea, "the room for thunks is not in the image or holds a site") with
            {
                Address = room.Address,
                Found = $"{room.Length} bytes",
                Expected = "a stretch of one segment without sites",
            });
    }
}
