using Iced.Intel;
using PvPatch.Images;

namespace PvPatch.Plans;

/// <summary>Facts about an image that a stored plan is checked against, beside its code and its site table.</summary>
public sealed record PlanCheckOptions
{
    /// <summary>
    /// Run address of each slot's word, by slot index: a call in old bytes must go through its site's. 0 or absent: not known.
    /// </summary>
    public IReadOnlyList<VirtualAddress>? SlotAddresses { get; init; }

    /// <summary>
    /// Functions that a site may call directly before it is patched: a kernel's BUG function, for sites whose originals are alternatives.
    /// </summary>
    public IReadOnlyList<VirtualAddress> DirectCallTargets { get; init; } = [];

    /// <summary>What a plan may write beside sites: room for thunks, the records of a table.</summary>
    public IReadOnlyList<AddressRange> AlsoWritten { get; init; } = [];

    /// <summary>
    /// Whether the image is to be an original once the plan is reverted: the plan must have every site of the table, and all old bytes that
    /// it changes must be an original of the site's slot, also where they stand in the image already.
    /// </summary>
    public bool IsWhole { get; init; }

    /// <summary>
    /// The instruction that stands in the place of a call at sites of some slots, by slot index: a kernel writes <c>swapgs</c> itself at
    /// one of its sites.
    /// </summary>
    public IReadOnlyDictionary<int, ReadOnlyMemory<byte>>? OriginalsWithoutCall { get; init; }
}

/// <summary>
/// Checks a plan that was read from a file. The applier compares the image with what the plan says, which a forged plan says as it likes:
/// so what it says is compared here with the image's own site table, and its old bytes with what may stand at a site before it is patched.
/// </summary>
internal sealed class PlanCheck
{
    private readonly PatchPlan _plan;
    private readonly CodeImage _image;
    private readonly SiteTable _sites;
    private readonly PlanCheckOptions _options;
    private readonly SiteFormReader _forms;
    private readonly DiagnosticList _found = new();

    private PlanCheck(PatchPlan plan, CodeImage image, SiteTable sites, PlanCheckOptions options)
    {
        _plan = plan;
        _image = image;
        _sites = sites;
        _options = options;
        _forms = new SiteFormReader(plan.Bitness);
    }

    /// <summary>What is said of an image of another bitness than the plan's.</summary>
    public static PatchDiagnostic WrongBitness(PatchPlan plan, CodeImage image) =>
        PatchDiagnostic.Error(DiagnosticCodes.WrongBitness, "the image's bitness is not the plan's") with
        {
            Found = $"{image.Bitness}",
            Expected = $"{plan.Bitness}"
        };

    public static IReadOnlyList<PatchDiagnostic> Run(PatchPlan plan, CodeImage image, SiteTable sites, PlanCheckOptions options)
    {
        if (plan.Bitness != image.Bitness)
        {
            return [WrongBitness(plan, image)];
        }

        var check = new PlanCheck(plan, image, sites, options);
        foreach (SiteDecision site in plan)
        {
            check.Check(site);
        }

        for (int i = 0; options.IsWhole && i < sites.Count; i++)
        {
            check.CheckThere(sites[i]);
        }

        return check._found.ToList();
    }

    private void Check(SiteDecision site)
    {
        if (!_image.TryGetBytes(site.Address, site.Length, out Span<byte> there))
        {
            _found.Add(At(DiagnosticCodes.PlanOutsideImage, $"the site of {site.Label} is not in the image", site) with
            {
                Expected = _image.ToString(),
            });
            return;
        }

        int index = _sites.IndexOf(site.Address);
        if (index < 0 || _sites[index].Budget != site.Length)
        {
            if (!_options.AlsoWritten.Any(r => r.Contains(site.Address, site.Length)) || _sites.Overlaps(site.Address, site.Length))
            {
                _found.Add(At(DiagnosticCodes.PlanSiteUnknown, "the plan has a site that the image's site table does not have", site) with
                {
                    Found = $"{site.Address}+{site.Length}",
                    Expected = index < 0 ? "a site of the table" : $"{site.Length} and not {_sites[index].Budget} bytes in the table",
                    Help = "The plan is of another image, or was changed.",
                });
            }

            return;
        }

        PatchSite record = _sites[index];
        if (site.Outcome.Type is int type && type != record.Slot)
        {
            _found.Add(At(DiagnosticCodes.PlanSiteUnknown, "the plan's site is of another slot than the table's", site) with
            {
                Found = $"slot {type}",
                Expected = $"slot {record.Slot}",
            });
            return;
        }

        if (_forms.Read(site.NewBytes, site.Address.Value, out _) == SiteForm.NotCode)
        {
            _found.Add(At(DiagnosticCodes.PlanInconsistent, "the new bytes of a site are not whole instructions", site) with
            {
                Found = HexBytes.Format(site.NewBytes),
                Expected = $"instructions of {site.Length} bytes in all",
            });
        }

        // What stands there now is there, whoever put it there, and is not written.
        if ((_options.IsWhole || !there.SequenceEqual(site.OldBytes)) && !site.OldBytes.SequenceEqual(site.NewBytes))
        {
            CheckOldBytes(site, record);
        }
    }

    private void CheckThere(in PatchSite site)
    {
        int index = _plan.IndexContaining(site.Address);
        if (index < 0 || _plan[index].Address != site.Address)
        {
            _found.Add(PatchDiagnostic.Error(DiagnosticCodes.PlanSiteUnknown, "the plan leaves out a site of the image's site table") with
            {
                Address = site.Address,
                Found = "no such site in the plan",
                Expected = $"{site.Budget} bytes for slot {site.Slot}",
            });
        }
    }

    private void CheckOldBytes(SiteDecision site, PatchSite record)
    {
        ReadOnlySpan<byte> old = site.OldBytes;
        SiteForm form = _forms.Read(old, site.Address.Value, out ulong slotAddress);
        ulong word = record.Slot < (_options.SlotAddresses?.Count ?? 0) ? _options.SlotAddresses![record.Slot].Value : 0;
        if (word != 0 && OriginalCode.IsOf(old, site.Address, _plan.Bitness, word))
        {
            return;
        }

        if (_options.OriginalsWithoutCall?.TryGetValue(record.Slot, out ReadOnlyMemory<byte> instead) == true
            && OriginalCode.IsAndNops(old, instead.Span, _plan.Bitness))
        {
            return;
        }

        if (form is SiteForm.IndirectCall or SiteForm.IndirectJump)
        {
            if (word != 0 && (word != slotAddress || _options.IsWhole))
            {
                _found.Add(
                    At(DiagnosticCodes.PlanOldBytes, $"the old bytes of the site of {site.Label} call through another slot", site) with
                    {
                        Found = $"{HexBytes.Format(old)}: {new VirtualAddress(slotAddress)}",
                        Expected = $"one call or jump through {new VirtualAddress(word)}, and nops",
                    });
            }

            return;
        }

        if (form == SiteForm.OtherCode && CallsAllowedTarget(old, site.Address))
        {
            return;
        }

        _found.Add(
            At(DiagnosticCodes.PlanOldBytes, $"the old bytes of the site of {site.Label} are not an indirect call or jump", site) with
            {
                Found = HexBytes.Format(old),
                Expected = "whole instructions, one of them a call or jump through memory",
                Help = "The plan is of another image, or was changed.",
            });
    }

    private bool CallsAllowedTarget(ReadOnlySpan<byte> old, VirtualAddress address)
    {
        if (_options.DirectCallTargets.Count == 0)
        {
            return false;
        }

        bool calls = false;
        foreach (Instruction instruction in Decoder.Create(_plan.Bitness, old.ToArray(), address.Value))
        {
            bool call = instruction.IsCallNear && _options.DirectCallTargets.Contains(new VirtualAddress(instruction.NearBranchTarget));
            if (!call && instruction.FlowControl != FlowControl.Next)
            {
                return false;
            }

            calls |= call;
        }

        return calls;
    }

    private static PatchDiagnostic At(string code, string message, SiteDecision site) =>
        PatchDiagnostic.Error(code, message) with { SiteIndex = site.Index, Address = site.Address };
}
