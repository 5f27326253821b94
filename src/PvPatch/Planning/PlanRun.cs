using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Microsoft.Extensions.Logging;
using PvPatch.Encoding;
using PvPatch.Images;
using PvPatch.Ops;
using PvPatch.Plans;
using PvPatch.Sites;

namespace PvPatch.Planning;

/// <summary>The making of one plan: walks the sites, asks for each kind of site once what to do, and lays down finished bytes.</summary>
internal sealed class PlanRun
{
    private readonly CodeImage _image;
    private readonly SiteTable _sites;
    private readonly Backend _backend;
    private readonly PlanOptions _options;
    private readonly DiagnosticList _found;
    private readonly OpsDecider _decider;
    private readonly TemplateCache _templates;
    private readonly SiteFormReader _forms;
    private readonly DecisionCache _cache = new();
    private readonly List<Prepared> _prepared = [];
    private readonly Dictionary<int, int> _missingUses = [];
    private readonly ThunkPlanner? _thunks;
    private readonly PlanBuilder _plan;
    private readonly IReadOnlyList<VirtualAddress>? _slotWords;

    public PlanRun(
        CodeImage image, SiteTable sites, Backend backend, PlanOptions options, TemplateCache templates, ILogger planLogger, DiagnosticList found)
    {
        _image = image;
        _sites = sites;
        _backend = backend;
        _options = options;
        _found = found;
        _templates = templates;
        _slotWords = SlotWords(options, backend.Layout, image.Bitness);
        _decider = new OpsDecider(options, templates, image.Bitness);
        _forms = new SiteFormReader(image.Bitness);
        _thunks = options.Thunks is ThunkRoom room ? new ThunkPlanner(image, CheckRoom(room)) : null;
        _plan = new PlanBuilder(backend.Name, options.Rules.Name, image, sites.Count) { Previous = options.Previous, Logger = planLogger };
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
        ReadOnlySpan<PatchSite> sites = _sites.Sites;
        for (int i = 0; i < sites.Length; i++)
        {
            ref readonly PatchSite site = ref sites[i];
            if (segment is null || !segment.Contains(site.Address, site.Budget))
            {
                segment = _image.Find(site.Address, site.Budget);
                if (segment is null)
                {
                    _found.Add(At(DiagnosticCodes.SiteOutsideImage, "the site lies outside every segment of the image", i) with { Found = $"{site.Address}+{site.Budget}", Expected = _image.ToString() });
                    continue;
                }

                bytes = segment.Bytes.Span;
            }

            PlanSite(i, site, bytes, (int)(site.Address - segment.Address));
        }

        if (_found.HasErrors)
        {
            return null;
        }

        _thunks?.AddTo(_plan);
        ReportMissing();
        return _plan.Build();
    }

    private void PlanSite(int index, in PatchSite site, Span<byte> segment, int offset)
    {
        if (!_cache.TryGet(site.DecisionKey, out int number))
        {
            number = Prepare(index, site);
            _cache.Add(site.DecisionKey, number);
        }

        Prepared prepared = _prepared[number];
        if (prepared.Failed is PatchDiagnostic failed)
        {
            _found.Add(failed with { SiteIndex = index, Address = site.Address });
            return;
        }

        ReadOnlySpan<byte> there = segment.Slice(offset, site.Budget);
        if (!CheckOld(index, site, there, out ReadOnlySpan<byte> original, out bool isCall))
        {
            return;
        }

        int outcome = prepared.Outcome;
        bool leave = prepared.Template is null;
        if (!leave && !isCall && _options.Rules.WantsIndirectCall)
        {
            outcome = prepared.OutcomeNotACall ??= _plan.OutcomeIndex(prepared.LeftAlone(PatchReason.NotACall));
            leave = true;
        }

        ref PlanEntry entry = ref _plan.Next(site.Address.Value, (byte)site.Budget, outcome);
        if (!entry.IsInPlace)
        {
            FinishLong(ref entry, prepared, site, original, leave);
            return;
        }

        entry.Old = segment.Length - offset >= PlanEntry.MaxInPlace && original == there
            ? Vector128.LoadUnsafe(ref MemoryMarshal.GetReference(segment), (nuint)offset) & PlanEntry.Masks[site.Budget]
            : Pad(original);
        entry.New = leave ? entry.Old : prepared.Bytes;
        if (!leave && prepared.Fixups != 0 && !TryFixUp(ref entry, prepared, site))
        {
            entry.New = entry.Old;
            entry.Outcome = prepared.OutcomeOutOfReach ??= _plan.OutcomeIndex(prepared.LeftAlone(PatchReason.OutOfReach));
        }
    }

    private bool TryFixUp(ref PlanEntry entry, Prepared prepared, in PatchSite site)
    {
        if (prepared.Fixups > 1)
        {
            return prepared.Template!.TryWrite(site.Address, PlanEntry.AsBytes(ref entry.New)[..site.Budget]);
        }

        bool reaches = prepared.OnlyFixup.TryGetDisplacement(site.Address, _image.Bitness, out int displacement);
        ref byte field = ref Unsafe.Add(ref Unsafe.As<Vector128<byte>, byte>(ref entry.New), prepared.OnlyFixup.Offset);
        Unsafe.WriteUnaligned(ref field, displacement);
        return reaches;
    }

    private void FinishLong(ref PlanEntry entry, Prepared prepared, in PatchSite site, ReadOnlySpan<byte> original, bool leave)
    {
        byte[] bytes = new byte[site.Budget];
        if (leave)
        {
            original.CopyTo(bytes);
        }
        else if (!prepared.Template!.TryWrite(site.Address, bytes))
        {
            original.CopyTo(bytes);
            entry.Outcome = prepared.OutcomeOutOfReach ??= _plan.OutcomeIndex(prepared.LeftAlone(PatchReason.OutOfReach));
        }

        entry.OverflowOffset = _plan.AddOverflow(original, bytes);
    }

    /// <summary>Decides what stands for the original bytes, and whether that is an indirect call; a finding where it is neither that nor a predecessor's.</summary>
    private bool CheckOld(int index, in PatchSite site, ReadOnlySpan<byte> there, out ReadOnlySpan<byte> original, out bool isCall)
    {
        original = there;
        if (_options.Previous is PatchPlan previous)
        {
            int before = previous.IndexContaining(site.Address);
            if (before >= 0 && previous[before].Address == site.Address && previous[before].Length == site.Budget
                && !there.SequenceEqual(previous.OldBytesOf(before))
                && (there.SequenceEqual(previous.NewBytesOf(before)) || previous.IsFromPredecessor(before, there)))
            {
                original = previous.OldBytesOf(before);
            }
        }

        SiteForm form = _forms.Read(original, site.Address.Value, out ulong slotAddress);
        isCall = form is SiteForm.IndirectCall or SiteForm.IndirectJump;
        if (isCall)
        {
            return CheckOperand(index, site, original, slotAddress);
        }

        // A site of fewer bytes than a call is a real instruction (the kernel's bare swapgs); Linux patches it like any other.
        if (form == SiteForm.NotCode || (!_options.Rules.WantsIndirectCall && site.Budget >= 5))
        {
            _found.Add(At(DiagnosticCodes.UnknownBytes, $"the bytes at the site of {_backend.Layout[site.Slot]} are not an indirect call or jump", index) with
            {
                Found = HexBytes.Format(original),
                Expected = "whole instructions, one of them a call or jump through memory",
                Help = "If the image is patched already, give the plan it was patched with; else the table is not this image's.",
            });
            return false;
        }

        return true;
    }

    private bool CheckOperand(int index, in PatchSite site, ReadOnlySpan<byte> original, ulong slotAddress)
    {
        if (slotAddress == 0 || _slotWords is null || site.Slot >= _slotWords.Count || _slotWords[site.Slot].IsZero || slotAddress == _slotWords[site.Slot].Value)
        {
            return true;
        }

        OpSlot? other = _backend.Layout.Slots.FirstOrDefault(s => s.Index < _slotWords.Count && _slotWords[s.Index].Value == slotAddress);
        _found.Add(At(DiagnosticCodes.WrongSlotOperand, $"the call at the site goes through another slot than its record says ({_backend.Layout[site.Slot]})", index) with
        {
            Found = $"{HexBytes.Format(original)}: {new VirtualAddress(slotAddress)}{(other is null ? "" : $" ({other})")}",
            Expected = $"{_slotWords[site.Slot]}",
            Help = "The table, the layout or the address of the ops table is not this image's.",
        });
        return false;
    }

    private static IReadOnlyList<VirtualAddress>? SlotWords(PlanOptions options, OpsLayout layout, int bitness)
    {
        if (options.SlotAddresses is not null || options.OpsTableAddress is not VirtualAddress table)
        {
            return options.SlotAddresses;
        }

        var words = new VirtualAddress[layout.Count];
        for (int i = 0; i < words.Length; i++)
        {
            words[i] = table + (long)i * (bitness / 8);
        }

        return words;
    }

    private int Prepare(int index, in PatchSite site)
    {
        Prepared prepared = PrepareNew(site);
        if (prepared.Failed is null && prepared.Action is PatchAction.Trap or PatchAction.CallBug)
        {
            _missingUses.TryAdd(site.Slot, index);
        }

        _prepared.Add(prepared);
        return _prepared.Count - 1;
    }

    private Prepared PrepareNew(in PatchSite site)
    {
        OpsLayout layout = _backend.Layout;
        if (site.Slot >= layout.Count)
        {
            return new Prepared(PatchDiagnostic.Error(DiagnosticCodes.SiteUnknownSlot, "the site names a slot the layout does not have") with
            {
                Found = $"slot {site.Slot}",
                Expected = $"0 to {layout.Count - 1} ({layout.Name})",
                Help = "Choose the layout of the kernel the table is from.",
            });
        }

        OpSlot slot = layout[site.Slot];
        if (slot.Kind == SlotKind.Data)
        {
            return new Prepared(PatchDiagnostic.Error(DiagnosticCodes.SiteDataSlot, $"the site names {slot}, which no code calls"));
        }

        Decision decision = _decider.Decide(slot, _backend[site.Slot], site);
        if (decision.Stop is not null)
        {
            return new Prepared(decision.Stop);
        }

        var outcome = new PlanOutcome
        {
            Label = slot.Name,
            Type = slot.Index,
            Clobbers = site.Clobbers,
            Action = decision.Action,
            Reason = decision.Reason,
            Target = decision.Target,
            TargetName = decision.TargetName,
            Detail = decision.Detail,
        };
        CodeTemplate? template = decision.Template;
        if (decision.Thunk is ThunkRequest request)
        {
            if (_thunks!.Place(request, decision.TargetName) is VirtualAddress thunk)
            {
                template = _templates.Call(thunk, site.Budget);
            }
            else
            {
                outcome = outcome with { Action = PatchAction.LeaveAlone, Reason = PatchReason.ClobbersTooMuch, Target = null, TargetName = null, Detail = "no room for a thunk in reach" };
            }
        }

        return new Prepared(outcome, _plan.OutcomeIndex(outcome), template);
    }

    private void ReportMissing()
    {
        foreach ((int slot, int index) in _missingUses)
        {
            PatchSite site = _sites[index];
            _plan.AddDiagnostic(PatchDiagnostic.Warning(DiagnosticCodes.MissingOperation, $"the backend {_backend.Name} has no operation for {_backend.Layout[slot]}: its sites trap") with
            {
                SiteIndex = index,
                Address = site.Address,
                Help = "Give the slot an operation, or a nop if nothing is to be done.",
            });
        }
    }

    private ThunkRoom CheckRoom(ThunkRoom room)
    {
        bool bad = room.Length < 0 || _image.Find(room.Address, Math.Max(0, room.Length)) is null;
        if (!bad && room.Length > 0)
        {
            foreach (PatchSite site in _sites.Sites)
            {
                bad |= site.Address < room.Address + room.Length && room.Address < site.End;
            }
        }

        return !bad ? room : throw new PatchException(PatchDiagnostic.Error(DiagnosticCodes.ThunkRoom, "the room for thunks is not in the image or holds a site") with
        {
            Address = room.Address,
            Found = $"{room.Length} bytes",
            Expected = "a stretch of one segment without sites",
        });
    }

    private PatchDiagnostic At(string code, string message, int index) =>
        PatchDiagnostic.Error(code, message) with { SiteIndex = index, Address = _sites[index].Address };

    private static Vector128<byte> Pad(ReadOnlySpan<byte> bytes)
    {
        Vector128<byte> padded = default;
        bytes.CopyTo(PlanEntry.AsBytes(ref padded));
        return padded;
    }

    /// <summary>A decision made ready for the walk: finished bytes as one vector, and where the displacement goes.</summary>
    private sealed class Prepared
    {
        private readonly PlanOutcome? _outcome;

        public Prepared(PatchDiagnostic failed) => Failed = failed;

        public Prepared(PlanOutcome outcome, int index, CodeTemplate? template)
        {
            _outcome = outcome;
            Outcome = index;
            Template = template;
            if (template is null)
            {
                return;
            }

            Fixups = template.FixupSpan.Length;
            OnlyFixup = Fixups == 1 ? template.FixupSpan[0] : default;
            if (template.Bytes.Length <= PlanEntry.MaxInPlace)
            {
                Bytes = Pad(template.Bytes);
            }
        }

        public PatchDiagnostic? Failed { get; }

        public PatchAction? Action => _outcome?.Action;

        public int Outcome { get; }

        public CodeTemplate? Template { get; }

        public Vector128<byte> Bytes { get; }

        public int Fixups { get; }

        public CodeFixup OnlyFixup { get; }

        public int? OutcomeOutOfReach { get; set; }

        public int? OutcomeNotACall { get; set; }

        public PlanOutcome LeftAlone(PatchReason reason) =>
            _outcome! with { Action = PatchAction.LeaveAlone, Reason = reason };
    }
}
