using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <content>Sites of settings: keys and branches.</content>
public sealed partial class SiteEmitter
{
    private const int MostKeys = 6; // 64 labels
    private readonly Assembler _scratch = new(64);

    /// <summary>Emits a branch on a key: a nop or a jump, one instruction.</summary>
    /// <param name="assembler">A 64-bit assembler.</param>
    /// <param name="key">The key.</param>
    /// <param name="target">Where it jumps: a label of this assembler, placed before or behind.</param>
    /// <param name="hint">What falls through.</param>
    /// <param name="length">Length in bytes: 5, or 2 where the label is within 127 bytes.</param>
    /// <returns>The site's ticket.</returns>
    /// <exception cref="PatchException">The key belongs to another arena (PV8036), when the code is put into one; as Emit else.</exception>
    public SiteTicket Branch(
        Assembler assembler, StaticKey key, Label target, BranchHint hint = BranchHint.Unlikely, int length = BranchCode.NearLength) =>
        hint == BranchHint.Likely
            ? Branch(assembler, key, whenOff: target, whenOn: default, length)
            : Branch(assembler, key, whenOff: default, whenOn: target, length);

    /// <summary>Emits a branch on a key where neither way falls through: always one jump.</summary>
    /// <param name="assembler">A 64-bit assembler.</param>
    /// <param name="key">The key.</param>
    /// <param name="whenOff">Where it jumps while the key is off; an empty label where control falls through.</param>
    /// <param name="whenOn">Where it jumps while the key is on; an empty label where control falls through.</param>
    /// <param name="length">Length in bytes: 5, or 2 where the labels are within 127 bytes.</param>
    /// <returns>The site's ticket.</returns>
    /// <exception cref="PatchException">As for the other forms.</exception>
    public SiteTicket Branch(
        Assembler assembler, StaticKey key, Label whenOff, Label whenOn, int length = BranchCode.NearLength) =>
        Branch(assembler, [key], [whenOff, whenOn], length);

    /// <summary>Emits a branch on several keys at once: what would be nested branches is one nop or one jump.</summary>
    /// <param name="assembler">A 64-bit assembler.</param>
    /// <param name="keys">The keys, 1 to 6.</param>
    /// <param name="labels">
    /// A label for each state of the keys: two for one key, four for two. The first key is the lowest bit of the label's number. An empty
    /// label is a state in which control falls through.
    /// </param>
    /// <param name="length">Length in bytes: 5, or 2 where the labels are within 127 bytes.</param>
    /// <returns>The site's ticket.</returns>
    /// <exception cref="PatchException">As for the other forms.</exception>
    public SiteTicket Branch(
        Assembler assembler, IReadOnlyList<StaticKey> keys, IReadOnlyList<Label> labels, int length = BranchCode.NearLength)
    {
        ArgumentNullException.ThrowIfNull(keys);
        ArgumentNullException.ThrowIfNull(labels);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(keys.Count, nameof(keys));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(keys.Count, MostKeys, nameof(keys));
        if (labels.Count != 1 << keys.Count)
        {
            throw new ArgumentException($"there must be {1 << keys.Count} labels for {keys.Count} keys", nameof(labels));
        }

        LiveSetting[] settings = [.. keys];
        if (settings.Distinct().Count() != settings.Length)
        {
            throw new ArgumentException("a key is named twice", nameof(keys));
        }

        return EmitSetting(assembler, settings, labels, length);
    }

    /// <summary>Emits a branch that goes one of several ways: one jump, or a nop where the way chosen falls through.</summary>
    /// <param name="assembler">A 64-bit assembler.</param>
    /// <param name="branch">The choice.</param>
    /// <param name="labels">A label for each way, in order; an empty one where control falls through.</param>
    /// <param name="length">Length in bytes: 5, or 2 where the labels are within 127 bytes.</param>
    /// <returns>The site's ticket.</returns>
    /// <exception cref="PatchException">As for the other forms.</exception>
    public SiteTicket Branch(
        Assembler assembler, MultiBranch branch, IReadOnlyList<Label> labels, int length = BranchCode.NearLength)
    {
        ArgumentNullException.ThrowIfNull(branch);
        ArgumentNullException.ThrowIfNull(labels);
        return labels.Count == branch.Ways
            ? EmitSetting(assembler, [branch], labels, length)
            : throw new ArgumentException($"there must be {branch.Ways} labels, one for each way", nameof(labels));
    }

    private SiteTicket EmitSetting(Assembler assembler, LiveSetting[] settings, IReadOnlyList<Label> labels, int length)
    {
        if (length is not (BranchCode.ShortLength or BranchCode.NearLength))
        {
            throw new ArgumentOutOfRangeException(nameof(length), length, "a branch has 2 or 5 bytes");
        }

        ArgumentNullException.ThrowIfNull(assembler);
        Array.ForEach(settings, static s => ArgumentNullException.ThrowIfNull(s, "keys"));
        Bind(assembler);
        ulong[] numbers = [.. labels.Select(NumberOf)];
        var kind = new PatchSite(VirtualAddress.Zero, SlotTable.SettingSlotOf(Layout), length, RegisterSet.None);
        _sites.Add(new EmittedSite(
            assembler.Instructions.Count, kind, SitePlacement.InsideAligned8, Forwarding: false, Start: -1, Placeholder.Emit(assembler, length))
        {
            Setting = new EmittedSetting(settings, numbers),
        });
        return new SiteTicket(_sites.Count - 1);
    }

    /// <summary>Iced's number of a label, placed or not, which it shows in what refers to the label; 0 of an empty one.</summary>
    private ulong NumberOf(Label label)
    {
        if (label.IsEmpty)
        {
            return 0;
        }

        _scratch.Reset();
        _scratch.jmp(label);
        return _scratch.Instructions[0].NearBranchTarget;
    }
}
