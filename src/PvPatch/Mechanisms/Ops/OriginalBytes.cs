using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using PvPatch.Plans;

namespace PvPatch.Mechanisms;

/// <summary>Says what a site's original bytes are and whether they are what they should be: an indirect call or jump, through the right slot.</summary>
internal sealed class OriginalBytes
{
    private readonly SiteFormReader _forms;
    private readonly Backend _backend;
    private readonly PatchRules _rules;
    private readonly PatchPlan? _previous;
    private readonly ulong[]? _slotWords;
    private readonly DiagnosticList _found;
    private int _cursor;

    public OriginalBytes(Backend backend, PlanOptions options, int bitness, DiagnosticList found)
    {
        _forms = new SiteFormReader(bitness);
        _backend = backend;
        _rules = options.Rules;
        _previous = options.Previous;
        _slotWords = SlotWords(options, backend.Layout, bitness);
        _found = found;
    }

    /// <summary>Whether a site is an indirect call or jump of a form read before, and right in every respect. <see langword="false"/> says nothing; ask <see cref="Check"/>.</summary>
    /// <param name="site">The site; sites are asked about in order of address.</param>
    /// <param name="bytes">In: its bytes in the image, zero behind them. Out: the original ones, where a previous plan has changed them.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool IsKnownCall(in PatchSite site, ref Vector128<byte> bytes)
    {
        return (_previous is null || TryUndo(_previous, site, ref bytes))
            && _forms.Knows(bytes, site.Budget, out int form)
            && (_slotWords is null || IsRightSlot(site, _forms.SlotAddress(form, bytes, site.Address.Value)));
    }

    /// <summary>Decides what stands for the original bytes, and whether that is an indirect call; a finding where it is neither that nor a predecessor's.</summary>
    public bool Check(int index, in PatchSite site, ReadOnlySpan<byte> there, out ReadOnlySpan<byte> original, out bool isCall)
    {
        original = there;
        if (_previous is PatchPlan previous)
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
            return _slotWords is null || IsRightSlot(site, slotAddress) || ReportSlot(index, site, original, slotAddress);
        }

        if (form == SiteForm.NotCode || (!_rules.RequiresIndirectCall && site.Budget >= 5))
        {
            _found.Add(At(DiagnosticCodes.UnknownBytes, $"the bytes at the site of {_backend.Layout[site.Slot]} are not an indirect call or jump", index, site) with
            {
                Found = HexBytes.Format(original),
                Expected = "whole instructions, one of them a call or jump through memory",
                Help = "If the image is patched already, give the plan it was patched with; else the table is not this image's.",
            });
            return false;
        }

        return true;
    }

    /// <summary>What <see cref="Check"/> does with a previous plan, for the two cases that nearly every site is in: its old bytes, and its new ones.</summary>
    private bool TryUndo(PatchPlan previous, in PatchSite site, ref Vector128<byte> bytes)
    {
        PlanEntry[] entries = previous.Entries;
        while (_cursor < entries.Length && entries[_cursor].Address < site.Address.Value)
        {
            _cursor++;
        }

        if (_cursor == entries.Length || entries[_cursor].Address != site.Address.Value || entries[_cursor].Length != site.Budget)
        {
            return true;
        }

        ref readonly PlanEntry entry = ref entries[_cursor];
        bool known = bytes == entry.Old || bytes == entry.New;
        bytes = entry.Old;
        return known;
    }

    /// <summary>Whether a call goes through its site's slot, or through a register so that it can't be told. 0 is no address of a word.</summary>
    private bool IsRightSlot(in PatchSite site, ulong slotAddress) =>
        slotAddress == 0 || (uint)site.Slot >= (uint)_slotWords!.Length || _slotWords[site.Slot] == slotAddress || _slotWords[site.Slot] == 0;

    private bool ReportSlot(int index, in PatchSite site, ReadOnlySpan<byte> original, ulong slotAddress)
    {
        int other = Array.IndexOf(_slotWords!, slotAddress);
        _found.Add(At(DiagnosticCodes.WrongSlotOperand, $"the call at the site goes through another slot than its record says ({_backend.Layout[site.Slot]})", index, site) with
        {
            Found = $"{HexBytes.Format(original)}: {new VirtualAddress(slotAddress)}{(other >= 0 ? $" ({_backend.Layout[other]})" : "")}",
            Expected = $"{new VirtualAddress(_slotWords![site.Slot])}",
            Help = "The table, the layout or the address of the ops table is not this image's.",
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
