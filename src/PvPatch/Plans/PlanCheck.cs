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
        if (word != 0 && IsOriginal(old, site.Address, _plan.Bitness, word))
        {
            return;
        }

        if (_options.OriginalsWithoutCall?.TryGetValue(record.Slot, out ReadOnlyMemory<byte> instead) == true
            && IsAndNops(old, instead.Span, _plan.Bitness))
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

    /// <summary>
    /// Whether code is one call or jump through a slot's word, nops, and registers saved before it and taken back behind it in the reverse
    /// order:
    /// <code>
    /// 50              push rax            (old assembly code)
    /// ff 15 xx xx xx xx  call [rip+word]
    /// 58              pop rax
    /// </code>
    /// </summary>
    /// <param name="code">The code.</param>
    /// <param name="address">Run address of its first byte.</param>
    /// <param name="bitness">32 or 64.</param>
    /// <param name="word">Run address of the slot's word.</param>
    private static bool IsOriginal(ReadOnlySpan<byte> code, VirtualAddress address, int bitness, ulong word)
    {
        var decoder = Decoder.Create(bitness, code.ToArray(), address.Value);
        var saved = new Stack<Register>();
        int transfers = 0;
        int at = 0;
        while (at < code.Length)
        {
            decoder.Decode(out Instruction instruction);
            at += instruction.Length;
            switch (instruction.Mnemonic)
            {
                case Mnemonic.Nop:
                    break;
                case Mnemonic.Push when instruction.Op0Kind == OpKind.Register && transfers == 0:
                    saved.Push(instruction.Op0Register);
                    break;
                case Mnemonic.Pop when instruction.Op0Kind == OpKind.Register && transfers == 1
                    && saved.TryPop(out Register register) && register == instruction.Op0Register:
                    break;
                case Mnemonic.Call or Mnemonic.Jmp when IsThrough(instruction, code[(at - instruction.Length)..at], word):
                    transfers++;
                    break;
                default:
                    return false;
            }
        }

        return at == code.Length && saved.Count == 0 && transfers == 1;
    }

    /// <summary>Whether code is one instruction, and nops before or behind it.</summary>
    /// <param name="code">The code.</param>
    /// <param name="wanted">The instruction.</param>
    /// <param name="bitness">32 or 64.</param>
    private static bool IsAndNops(ReadOnlySpan<byte> code, ReadOnlySpan<byte> wanted, int bitness)
    {
        var decoder = Decoder.Create(bitness, code.ToArray());
        bool found = false;
        int at = 0;
        while (at < code.Length)
        {
            decoder.Decode(out Instruction instruction);
            bool isIt = !found && code.Slice(at, instruction.Length).SequenceEqual(wanted);
            if (!isIt && instruction.Mnemonic != Mnemonic.Nop)
            {
                return false;
            }

            found |= isIt;
            at += instruction.Length;
        }

        return found && at == code.Length;
    }

    private static bool IsThrough(in Instruction instruction, ReadOnlySpan<byte> bytes, ulong word) =>
        instruction.Op0Kind == OpKind.Memory && instruction.IsCallNearIndirect | instruction.IsJmpNearIndirect
        && SiteFormReader.HasOrdinaryPrefixes(bytes)
        && instruction.MemoryBase is Register.None or Register.RIP && instruction.MemoryIndex == Register.None
        && word == instruction.MemoryDisplacement64; // of rip the sum; else in 64-bit code extended by sign

    private static PatchDiagnostic At(string code, string message, SiteDecision site) =>
        PatchDiagnostic.Error(code, message) with { SiteIndex = site.Index, Address = site.Address };
}
