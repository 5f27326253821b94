using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>
/// Says what a site's original bytes are and whether they are what they should be: an indirect call or jump through the right slot, or a
/// direct call or jump to the slot's function where <see cref="PlanOptions.SlotFunctions"/> names it.
/// </summary>
internal sealed class OriginalBytes
{
    private readonly SiteFormReader _forms;
    private readonly Backend _backend;
    private readonly PatchRules _rules;
    private readonly PatchPlan? _previous;
    private readonly ulong[]? _slotWords;
    private readonly IReadOnlyList<VirtualAddress>? _slotFunctions;
    private readonly DiagnosticList _found;
    private int _cursor;

    public OriginalBytes(Backend backend, PlanOptions options, SiteFormReader forms, int bitness, DiagnosticList found)
    {
        _forms = forms;
        _backend = backend;
        _rules = options.Rules;
        _previous = options.Previous;
        _slotWords = SlotWords(options, backend.Layout, bitness);
        _slotFunctions = options.SlotFunctions;
        _found = found;
    }

    /// <summary>Whether there is more to ask of a site than whether its form is known.</summary>
    public bool ChecksEachCall => _previous is not null || _slotWords is not null;

    /// <summary>
    /// Puts the original bytes in place of those of the previous plan. <see langword="false"/> says nothing; ask <see cref="Check"/>.
    /// </summary>
    /// <param name="address">The site's run address; sites are asked about in order of address.</param>
    /// <param name="length">Its length.</param>
    /// <param name="there">16 bytes from the site's first on.</param>
    /// <param name="original">The original ones, whatever stands behind them.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool TryUndo(ulong address, int length, Vector128<byte> there, out Vector128<byte> original)
    {
        original = there;
        if (_previous is not PatchPlan previous)
        {
            return true;
        }

        PlanEntry[] entries = previous.Entries;
        int at = _cursor;
        while (at < entries.Length && entries[at].Address < address)
        {
            at++;
        }

        _cursor = at;
        if (at == entries.Length || entries[at].Address != address || previous.LengthOf(at) != length)
        {
            return true;
        }

        previous.GetVectors(at, out original, out Vector128<byte> @new);
        there &= SiteBytes.Masks[length];
        return there == original || there == @new;
    }

    /// <summary>Whether a call of a known form goes through its site's slot.</summary>
    public bool IsRightCall(in PatchSite site, in OldForm form, int field) =>
        _slotWords is null || IsRightSlot(site, _forms.SlotAddress(form, field, site.Address.Value));

    /// <summary>
    /// Decides what stands for the original bytes, and whether that is an indirect call; a finding where it is neither that nor a
    /// predecessor's.
    /// </summary>
    /// <param name="index">The site's index.</param>
    /// <param name="site">The site.</param>
    /// <param name="original">In: what is there. Out: the original bytes, where a previous plan has changed them.</param>
    /// <param name="isCall">Whether they are an indirect call or jump.</param>
    public bool Check(int index, in PatchSite site, Span<byte> original, out bool isCall)
    {
        if (_previous is PatchPlan previous)
        {
            Span<byte> scratch = stackalloc byte[SiteBytes.MaxLength];
            Span<byte> otherScratch = stackalloc byte[SiteBytes.MaxLength];
            int before = previous.IndexContaining(site.Address);
            if (before >= 0 && previous.Entries[before].Address == site.Address.Value && previous.LengthOf(before) == site.Budget)
            {
                ReadOnlySpan<byte> old = previous.OldBytesOf(before, scratch);
                if (!original.SequenceEqual(old)
                    && (original.SequenceEqual(previous.NewBytesOf(before, otherScratch)) || previous.IsFromPredecessor(before, original)))
                {
                    old.CopyTo(original);
                }
            }
        }

        SiteForm form = _forms.Read(original, site.Address.Value, out ulong slotAddress);
        isCall = form is SiteForm.IndirectCall or SiteForm.IndirectJump;
        if (isCall)
        {
            return _slotWords is null || IsRightSlot(site, slotAddress) || ReportSlot(index, site, original, slotAddress);
        }

        if (form == SiteForm.OtherCode && _slotFunctions is not null && site.Slot < _slotFunctions.Count
            && !_slotFunctions[site.Slot].IsZero
            && _forms.TryReadDirect(
                original, site.Address.Value, _backend.Layout[site.Slot].Kind == SlotKind.Jump, out ulong function, out int _))
        {
            isCall = function == _slotFunctions[site.Slot].Value;
            return isCall || ReportFunction(index, site, original, function);
        }

        if (form == SiteForm.NotCode || (!_rules.RequiresIndirectCall && site.Budget >= 5))
        {
            _found.Add(At(DiagnosticCodes.UnknownBytes,
                $"the bytes at the site of {_backend.Layout[site.Slot]} are not an indirect call or jump", index, site) with
            {
                Found = HexBytes.Format(original),
                Expected = "whole instructions, one of them a call or jump through memory",
                Help = "If the image is patched already, give the plan it was patched with; else the table is not this image's.",
            });
            return false;
        }

        return true;
    }

    /// <summary>
    /// Whether a call goes through its site's slot, or through a register so that it can't be told. 0 is no address of a word.
    /// </summary>
    private bool IsRightSlot(in PatchSite site, ulong slotAddress) =>
        slotAddress == 0 || (uint)site.Slot >= (uint)_slotWords!.Length || _slotWords[site.Slot] == slotAddress
            || _slotWords[site.Slot] == 0;

    private bool ReportSlot(int index, in PatchSite site, ReadOnlySpan<byte> original, ulong slotAddress)
    {
        int other = Array.IndexOf(_slotWords!, slotAddress);
        _found.Add(At(DiagnosticCodes.WrongSlotOperand,
            $"the call at the site goes through another slot than its record says ({_backend.Layout[site.Slot]})", index, site) with
        {
            Found = $"{HexBytes.Format(original)}: {new VirtualAddress(slotAddress)}{(other >= 0 ? $" ({_backend.Layout[other]})" : "")}",
            Expected = $"{new VirtualAddress(_slotWords![site.Slot])}",
            Help = "The table, the layout or the address of the ops table is not this image's.",
        });
        return false;
    }

    private bool ReportFunction(int index, in PatchSite site, ReadOnlySpan<byte> original, ulong function)
    {
        _found.Add(At(DiagnosticCodes.WrongSlotOperand,
            $"the direct call or jump at the site of {_backend.Layout[site.Slot]} does not lead to the slot's function", index, site) with
        {
            Found = $"{HexBytes.Format(original)}: {new VirtualAddress(function)}",
            Expected = $"{_slotFunctions![site.Slot]}",
            Help = "If the image is patched already, give the plan it was patched with; else table or functions are not this image's.",
        });
        return false;
    }

    private static ulong[]? SlotWords(PlanOptions options, OpsLayout layout, int bitness)
    {
        if (options.SlotAddresses is IReadOnlyList<VirtualAddress> given)
        {
            return [.. given.Take(layout.Count).Select(static a => a.Value)];
        }

        if (options.OpsTableAddress is not VirtualAddress table)
        {
            return null;
        }

        var words = new ulong[layout.Count];
        for (int i = 0; i < words.Length; i++)
        {
            words[i] = unchecked(table.Value + ((ulong)i * (ulong)(bitness / 8)));
        }

        return words;
    }

    private static PatchDiagnostic At(string code, string message, int index, in PatchSite site) =>
        PatchDiagnostic.Error(code, message) with { SiteIndex = index, Address = site.Address };
}
