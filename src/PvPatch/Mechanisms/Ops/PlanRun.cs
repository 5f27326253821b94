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
    private readonly ThunkPlanner? _thunks;
    private readonly PlanBuilder _plan;
    private readonly PlanEntry[] _entries;
    private readonly KindDecisions _made;
    private readonly OriginalBytes _originals;
    private bool _mayBeOutOfReach;

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
        ThunkArea room = options.Thunks is ThunkArea given ? CheckRoom(given) : default;
        _thunks = options.Thunks is not null || options.Previous is not null ? new ThunkPlanner(image, room, options.Previous) : null;
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
        _made.Decide(_sites.Kinds.Kinds, _thunks);
        _mayBeOutOfReach = MayBeOutOfReach();
        var window = new ImageWindow(_image);
        ReadOnlySpan<PatchSite> sites = _sites.Sites;
        int end = 0;
        for (int i = 0; i < sites.Length; i++)
        {
            end = i < end ? end : EndOf(i, window);
            i = i < end ? PlanKnown(i, end, window) : i;
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

        _thunks?.AddTo(_plan);
        ReportMissing();
        return _plan.Build();
    }

    /// <summary>
    /// Plans sites from <paramref name="index"/> on as far as all about them is known; the index of the first that is not done.
    /// </summary>
    private int PlanKnown(int index, int end, in ImageWindow window)
    {
        if (!_originals.ChecksEachCall && !_mayBeOutOfReach)
        {
            return PlanAll(
                _sites.Sites, index, end,
                ref MemoryMarshal.GetArrayDataReference(_sites.Kinds.OfSite),
                ref MemoryMarshal.GetArrayDataReference(_made.Walked),
                ref MemoryMarshal.GetArrayDataReference(_made.Reader.Known),
                ref MemoryMarshal.GetArrayDataReference(_entries),
                ref window.First, window.Start);
        }

        return PlanEach(index, end, ref window.First, window.Start);
    }

    /// <summary>
    /// The loop over sites of which nothing has to be known but their kind and form. It calls nothing, so that all it works with stays in
    /// registers.
    /// </summary>
    /// <remarks>Optimised when it is first called: a plan is most often made once.</remarks>
    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    private static int PlanAll(
        ReadOnlySpan<PatchSite> table, int index, int end,
        ref int kinds, ref WalkedKind walked, ref OldForm known, ref PlanEntry entries, ref byte first, ulong start)
    {
        // The arrays of kinds and entries are as long as the table; a kind's number is below the number of kinds.
        ref PatchSite sites = ref MemoryMarshal.GetReference(table);
        for (; index < end; index++)
        {
            ulong address = Unsafe.Add(ref sites, index).Address.Value;
            ref readonly WalkedKind kind = ref Unsafe.Add(ref walked, Unsafe.Add(ref kinds, index));
            Vector128<byte> there = Vector128.LoadUnsafe(ref Unsafe.Add(ref first, (nint)(address - start)));
            ref readonly OldForm form = ref Unsafe.Add(ref known, kind.FirstForm);
            if (!form.Matches(there))
            {
                int way = 1;
                while (way < SiteFormReader.Ways && !Unsafe.Add(ref known, kind.FirstForm + way).Matches(there))
                {
                    way++;
                }

                if (way == SiteFormReader.Ways)
                {
                    break;
                }

                form = ref Unsafe.Add(ref known, kind.FirstForm + way);
            }

            PlanEntry.Store(ref Unsafe.Add(ref entries, index), address, form.FieldOf(there), form.Number | kind.NewForm);
        }

        return index;
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
        ref int kinds = ref MemoryMarshal.GetArrayDataReference(_sites.Kinds.OfSite);
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
                // a branch on whether there is a fix-up could not be foretold
                long distance = unchecked((long)(wanted.Origin - address)) & wanted.DistanceMask;
                if (distance != (int)distance)
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

        // The distances farthest up and down, of spans short enough not to wrap.
        (ulong lowest, ulong highest) = _made.Origins;
        (ulong first, ulong last) = (sites[0].Address.Value, sites[^1].Address.Value);
        long up = unchecked((long)(highest - first));
        long down = unchecked((long)(lowest - last));
        return lowest <= highest
            && (highest - lowest > uint.MaxValue || last - first > uint.MaxValue || up != (int)up || down != (int)down);
    }

    private int EndOf(int index, in ImageWindow window)
    {
        ReadOnlySpan<PatchSite> sites = _sites.Sites;
        int low = index;
        int high = sites.Length;
        while (low < high)
        {
            int middle = (low + high) >>> 1;
            (low, high) = sites[middle].Address.Value - window.Start < window.VectorCount ? (middle + 1, high) : (low, middle);
        }

        return low;
    }

    private void PlanAny(int index, in PatchSite site, ReadOnlySpan<byte> there)
    {
        KindDecision decision = _made.Decisions[_sites.Kinds.OfSite[index]];
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
            outcome = decision.NotACall();
            original.CopyTo(bytes);
        }
        else if (!decision.Template.TryWrite(site.Address, bytes))
        {
            outcome = decision.OutOfReach();
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
            PatchSite site = _sites.Kinds.Kinds[kind];
            if (!_made.Decisions[kind].IsMissing || !reported.Add(site.Slot))
            {
                continue;
            }

            _plan.AddDiagnostic(PatchDiagnostic.Warning(
                DiagnosticCodes.MissingOperation,
                $"the backend {_backend.Name} has no operation for {_backend.Layout[site.Slot]}: its sites trap, or call BUG by rules "
                    + $"that do") with
            {
                SiteIndex = _sites.Kinds.First[kind],
                Address = site.Address,
                Help = "Give the slot an operation, or a nop if nothing is to be done.",
            });
        }
    }

    private ThunkArea CheckRoom(ThunkArea room)
    {
        bool bad = room.Length < 0 || _image.Find(room.Address, Math.Max(0, room.Length)) is null;
        if (!bad && room.Length > 0)
        {
            foreach (PatchSite site in _sites.Sites)
            {
                bad |= site.Address < room.Address + room.Length && room.Address < site.End;
            }
        }

        return !bad ? room : throw new PatchException(
            PatchDiagnostic.Error(DiagnosticCodes.ThunkArea, "the room for thunks is not in the image or holds a site") with
            {
                Address = room.Address,
                Found = $"{room.Length} bytes",
                Expected = "a stretch of one segment without sites",
            });
    }
}
