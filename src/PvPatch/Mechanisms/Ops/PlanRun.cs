using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Microsoft.Extensions.Logging;
using PvPatch.Images;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>
/// The making of one plan: walks the sites, asks for each kind of site once what to do, and lays down finished bytes. Sites whose
/// decision and form are known by now go a way without branches on either; the first of a kind and whatever is odd goes the long way.
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
    private readonly PreparedDecisions _decisions;
    private readonly OriginalBytes _originals;

    public PlanRun(
        CodeImage image, SiteTable sites, Backend backend, PlanOptions options, TemplateCache templates, ILogger planLogger, DiagnosticList found)
    {
        _image = image;
        _sites = sites;
        _backend = backend;
        _options = options;
        _found = found;
        ThunkArea room = options.Thunks is ThunkArea given ? CheckRoom(given) : default;
        _thunks = options.Thunks is not null || options.Previous is not null ? new ThunkPlanner(image, room, options.Previous) : null;
        _plan = new PlanBuilder(backend.Name, options.Rules.Name, image, sites.Count) { Previous = options.Previous, Logger = planLogger };
        _decisions = new PreparedDecisions(backend, new OpsDecider(options, templates, image.Bitness), templates, _thunks, _plan);
        _originals = new OriginalBytes(backend, options, image.Bitness, found);
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

        CodeSegment? segment = null;
        Span<byte> bytes = default;
        ulong start = 0;
        ReadOnlySpan<PatchSite> sites = _sites.Sites;
        for (int i = 0; (i = PlanKnown(i, new VectorWindow(bytes, start))) < sites.Length; i++)
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
    /// <remarks>Optimised when it is first called: a plan is most often made once.</remarks>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private int PlanKnown(int index, VectorWindow near)
    {
        ref Vector128<byte> masks = ref MemoryMarshal.GetArrayDataReference(PlanEntry.Masks);
        bool anyReach = _image.Bitness == 32; // distances wrap at 4 GiB
        ReadOnlySpan<PatchSite> sites = _sites.Sites;
        for (; index < sites.Length; index++)
        {
            ref readonly PatchSite site = ref sites[index];
            if (!near.Holds(site.Address.Value))
            {
                break;
            }

            ref readonly ReadyDecision ready = ref _decisions.Ready(site);
            if (!ready.IsPlain)
            {
                break; // a plain decision says too that the budget is at most 16
            }

            Vector128<byte> old = Vector128.LoadUnsafe(ref near.At(site.Address.Value)) & Unsafe.Add(ref masks, site.Budget);
            long distance = ready.DistanceFrom(site.Address.Value);
            if (!_originals.IsKnownCall(site, ref old) || (distance != (int)distance && !anyReach))
            {
                break;
            }

            ref PlanEntry entry = ref _plan.NextUnfilled(site.Address.Value, site.Budget, ready.Outcome);
            entry.Old = old;
            ready.WriteTo(ref entry.New, old, unchecked((int)distance));
        }

        return index;
    }

    private void PlanAny(int index, in PatchSite site, ReadOnlySpan<byte> there)
    {
        PreparedDecision decision = _decisions.Get(index, site);
        if (decision.Failed is PatchDiagnostic failed)
        {
            _found.Add(failed with { SiteIndex = index, Address = site.Address });
            return;
        }

        if (!_originals.Check(index, site, there, out ReadOnlySpan<byte> original, out bool isCall))
        {
            return;
        }

        int outcome = decision.Outcome;
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

        _plan.Add(site.Address, original, bytes, outcome);
    }

    private void ReportMissing()
    {
        foreach ((int slot, int index) in _decisions.MissingUses)
        {
            PatchSite site = _sites[index];
            _plan.AddDiagnostic(PatchDiagnostic.Warning(DiagnosticCodes.MissingOperation, $"the backend {_backend.Name} has no operation for {_backend.Layout[slot]}: its sites trap, or call BUG by rules that do") with
            {
                SiteIndex = index,
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
}
