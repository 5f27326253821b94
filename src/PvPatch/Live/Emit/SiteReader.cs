using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>Checks sites that a host's own emitter has written, before they become live ones.</summary>
internal sealed class SiteReader
{
    private readonly CodeBlock _block;
    private readonly SlotTable _slots;
    private readonly byte[] _code;
    private readonly SiteFormReader _forms = new(64);

    /// <summary>Reads sites of a block.</summary>
    /// <param name="block">The block, which is not in use yet.</param>
    /// <param name="slots">The slots its sites name.</param>
    /// <param name="code">Its bytes.</param>
    public SiteReader(CodeBlock block, SlotTable slots, ReadOnlySpan<byte> code)
    {
        _block = block;
        _slots = slots;
        _code = code.ToArray();
    }

    /// <summary>Whether bytes are one instruction that may be replaced by another under running threads: for a call, nothing stands behind it.</summary>
    public static bool IsSingle(ReadOnlySpan<byte> bytes)
    {
        var decoder = Decoder.Create(64, bytes.ToArray());
        decoder.Decode(out Instruction instruction);
        return !instruction.IsInvalid && instruction.Length == bytes.Length;
    }

    /// <summary>Reads a site into its block's record; the block keeps its bytes where they are not what an emitter would have written.</summary>
    public void Read(PatchSite site, int index)
    {
        if (site.Slot >= _slots.Layout.Count)
        {
            throw Error(DiagnosticCodes.SiteUnknownSlot, "the site names a slot the layout does not have", site, index, $"slot {site.Slot}", $"0 to {_slots.Layout.Count - 1}");
        }

        OpSlot slot = _slots.Layout[site.Slot];
        if (slot.Kind == SlotKind.Data)
        {
            throw Error(DiagnosticCodes.SiteDataSlot, $"the site names {slot}, which no code calls", site, index, null, null);
        }

        long offset = site.Address - _block.Address;
        if (site.Address < _block.Address || offset > _code.Length || site.Budget > _code.Length - offset)
        {
            throw Error(DiagnosticCodes.LiveSiteOutside, "the site lies outside the code", site, index, $"{site.Address}+{site.Budget}", $"{_block.Address}+{_code.Length}");
        }

        byte[] bytes = _code.AsSpan((int)offset, site.Budget).ToArray();
        SiteForm form = _forms.Read(bytes, site.Address.Value, out ulong slotAddress);
        bool jump = slot.Kind == SlotKind.Jump;
        if (form != (jump ? SiteForm.IndirectJump : SiteForm.IndirectCall))
        {
            throw Error(
                DiagnosticCodes.LiveSiteForm,
                $"the site of {slot} does not hold an indirect {(jump ? "jump" : "call")}",
                site,
                index,
                HexBytes.Format(bytes),
                jump ? "jmp [slot], prefixes before it" : "call [slot], prefixes before it");
        }

        CheckOperand(site, index, slot, slotAddress);
        ref SiteRecord record = ref _block.Records[index];
        record.Offset = (uint)(site.Address - _block.Arena.Address);
        record.Kind = _slots.Kinds.NumberOf(site);
        byte[] usual = new byte[site.Budget];
        if (site.Budget >= IndirectForm.Length)
        {
            _slots.WriteOriginal(site, site.Address, usual);
        }

        if (!bytes.AsSpan().SequenceEqual(usual))
        {
            _block.KeepOriginal(index, bytes);
        }
    }

    private void CheckOperand(PatchSite site, int index, OpSlot slot, ulong slotAddress)
    {
        long distance = unchecked((long)(slotAddress - _slots.Address.Value));
        bool ours = distance >= 0 && distance < 8L * _slots.Layout.Count;
        if (ours && distance != 8L * slot.Index)
        {
            string found = distance % 8 == 0 ? _slots.Layout[(int)(distance / 8)].Name : "the middle of a slot";
            throw Error(DiagnosticCodes.WrongSlotOperand, $"the site of {slot} goes through another slot", site, index, found, slot.Name);
        }
    }

    private static PatchException Error(string code, string message, PatchSite site, int index, string? found, string? expected) =>
        new(PatchDiagnostic.Error(code, message) with { SiteIndex = index, Address = site.Address, Found = found, Expected = expected });
}
