using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Microsoft.Extensions.Logging;
using PvPatch.Images;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>
/// The making of one plan: asks for each kind of site once what to do, then walks the sites and lays down an entry for each. Sites whose decision and form
/// are known go a way without branches on either; the first of a form and whatever is odd goes the long way.
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
    private KindDecision[] _decisions = [];
    private WalkedKind[] _walked = [];

    public PlanRun(
        CodeImage image, SiteTable sites, Backend backend, PlanOptions options, KindDecisions made, ILogger planLogger, DiagnosticList found)
    {
        _image = image;
        _sites = sites;
        _backend = backend;
        _options = options;
        _found = found;
        _made = made;
        ThunkArea room = options.Thunks is ThunkArea given ? CheckRoom(given) : default;
        _thunks = options.Thunks is not null || options.Previous is not null ? new ThunkPlanner(image, room, options.Previous) : null;
        _plan = new PlanBuilder(backend.Name, options.Rules.Name, image, made.Forms, sites) { Previous = options.Previous, Logger = planLogger };
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

        _decisions = _made.For(_sites.Kinds.Kinds, _thunks);
        _walked = new WalkedKind[_decisions.Length];
        for (int i = 0; i < _walked.Length; i++)
        {
            _walked[i] = _decisions[i].Walked;
        }

        CodeSegment? segment = null;
        Span<byte> bytes = default;
        ulong start = 0;
        ReadOnlySpan<PatchSite> sites = _sites.Sites;
        for (int i = 0; (i = PlanKnown(i, bytes, start)) < sites.Length; i++)
        {
            ref readonly PatchSite site = ref sites[i];
            if (segment is null || !segment.Contains(site.Address, site.Budget))
            {
                segment = _image.Find(site.Address, site.Budget);
                if (segment is null)
                {
                    bytes = default;
                    _found.Add(PatchDiagnostic.Error(DiagnosticCodes.SiteOutsideImage, "the site lies outside every segment of the image") with
                    {
                        SiteIndex = i,
                        Address = site.Address,
                        Found = $"{site.Address}+{site.Budget}",
                        Expected = _image.ToString(),
                    });
                    continue;
                }

                bytes = segment.Bytes.Span;
                start = segment.Address.Value;
            }

            PlanAny(i, site, bytes.Slice((int)(site.Address - segment.Address), site.Budget));
        }

        if (_found.HasErrors)
        {
            return null;
        }

        _thunks?.AddTo(_plan);
        ReportMissing();
        return _plan.Build();
    }

    /// <summary>Plans sites from <paramref name="index"/> on as far as all about them is known; the index of the first that is not done.</summary>
    private int PlanKnown(int index, Span<byte> bytes, ulong start)
    {
        var near = new VectorWindow(bytes, start);
        return _originals.ChecksEachCall ? PlanKnown<Checked>(index, near) : PlanKnown<Unchecked>(index, near);
    }

    /// <remarks>Optimised when it is first called: a plan is most often made once.</remarks>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private int PlanKnown<TChecks>(int index, VectorWindow near)
        where TChecks : struct, IChecks
    {
        bool anyReach = _image.Bitness == 32; // distances wrap at 4 GiB
        ReadOnlySpan<PatchSite> sites = _sites.Sites;
        ref int kinds = ref MemoryMarshal.GetArrayDataReference(_sites.Kinds.OfSite);
        ref WalkedKind walked = ref MemoryMarshal.GetArrayDataReference(_walked);
        ref PlanEntry entries = ref MemoryMarshal.GetArrayDataReference(_entries);
        SiteFormReader forms = _made.Reader;
        for (; index < sites.Length; index++)
        {
            // The arrays of kinds and entries are as long as the table; a kind's number is below the number of kinds.
            ulong address = sites[index].Address.Value;
            ref readonly WalkedKind kind = ref Unsafe.Add(ref walked, Unsafe.Add(ref kinds, index));
            if (!near.Holds(address) || kind.Length == 0)
            {
                break;
            }

            Vector128<byte> there = Vector128.LoadUnsafe(ref near.At(address));
            if (TChecks.EachCall && !_originals.TryUndo(address, kind.Length, there, out there))
            {
                break;
            }

            long distance = unchecked((long)(kind.Origin - address)) & kind.DistanceMask;
            ref readonly KnownForm form = ref forms.Find(there, kind.Length);
            if (Unsafe.IsNullRef(in form) || (distance != (int)distance && !anyReach))
            {
                break;
            }

            int field = form.FieldOf(there);
            if (TChecks.EachCall && !_originals.IsRightCall(sites[index], form, field))
            {
                break;
            }

            PlanEntry.Store(ref Unsafe.Add(ref entries, index), address, field, form.Number, kind.Form);
        }

        return index;
    }

    private void PlanAny(int index, in PatchSite site, ReadOnlySpan<byte> there)
    {
        KindDecision decision = _decisions[_sites.Kinds.OfSite[index]];
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

        if (form >= 0 && site.Budget <= SiteVector.MaxLength)
        {
            Vector128<byte> vector = SiteVector.Pad(original);
            ref readonly KnownForm old = ref _made.Reader.Find(vector, site.Budget);
            if (!Unsafe.IsNullRef(in old))
            {
                PlanEntry.Store(ref _entries[index], site.Address.Value, old.FieldOf(vector), old.Number, form);
                return;
            }
        }

        _entries[index] = _plan.Overflow(site.Address.Value, original, bytes, outcome);
    }

    private void ReportMissing()
    {
        var reported = new HashSet<int>();
        for (int kind = 0; kind < _decisions.Length; kind++)
        {
            PatchSite site = _sites.Kinds.Kinds[kind];
            if (!_decisions[kind].IsMissing || !reported.Add(site.Slot))
            {
                continue;
            }

            _plan.AddDiagnostic(PatchDiagnostic.Warning(
                DiagnosticCodes.MissingOperation,
                $"the backend {_backend.Name} has no operation for {_backend.Layout[site.Slot]}: its sites trap, or call BUG by rules that do") with
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

        return !bad ? room : throw new PatchException(PatchDiagnostic.Error(DiagnosticCodes.ThunkArea, "the room for thunks is not in the image or holds a site") with
        {
            Address = room.Address,
            Found = $"{room.Length} bytes",
            Expected = "a stretch of one segment without sites",
        });
    }

    /// <summary>Whether each call is looked at beyond its form; a type, so that each way gets a loop of its own.</summary>
    private interface IChecks
    {
        public static abstract bool EachCall { get; }
    }

    private readonly struct Checked : IChecks
    {
        public static bool EachCall => true;
    }

    private readonly struct Unchecked : IChecks
    {
        public static bool EachCall => false;
    }
}
