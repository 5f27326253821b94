using System.Runtime.InteropServices;
using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Mechanisms;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>A site that was emitted, by its place among the sites of its block. See <see cref="CodeBlock.this[SiteTicket]"/>.</summary>
/// <param name="Index">Counted from 0 in the order of emission, which is the order of address.</param>
public readonly record struct SiteTicket(int Index);

/// <summary>
/// Where an emitted site may come to lie. Kept by prefixes on the instruction before the site where that can take them (not a branch, no
/// prefix of its own but mandatory ones, five more bytes at most), else by nops; neither is part of the site.
/// </summary>
public enum SitePlacement
{
    /// <summary>
    /// Not across the end of a 64-byte line, and not with its first byte at the end of 8: can always be changed live, by three barriers at
    /// worst. Costs a third of a byte a site.
    /// </summary>
    WithinCacheLine,

    /// <summary>Inside an aligned 8 bytes: one store changes it. For budgets up to 8; costs about two bytes a site of six.</summary>
    InsideAligned8,

    /// <summary>Inside an aligned 16 bytes: one store changes it on processors with AVX. For budgets up to 16.</summary>
    InsideAligned16,

    /// <summary>Wherever it falls. One site in sixteen (one in eight without AVX) can then be changed only at quiescence.</summary>
    None,
}

/// <summary>
/// Emits patchable sites into an Iced assembler and remembers them, so that emitting and patching can't disagree. One emitter goes with one
/// assembler at a time; after
/// <see cref="CodeArena.Emit(Assembler, SiteEmitter)"/> it is empty and can be used with the next one. Several emitters, of one layout or
/// several, may emit into the same assembler: <see cref="CodeArena.Emit(Assembler, IReadOnlyList{SiteEmitter}, out CodeLabels)"/> takes
/// them all. Not safe for several threads.
/// </summary>
public sealed partial class SiteEmitter
{
    private readonly List<EmittedSite> _sites = [];
    private int _withoutIsland;

    /// <summary>Makes an emitter for code without operations.</summary>
    public SiteEmitter()
        : this(OpsLayout.Empty)
    {
    }

    /// <summary>Makes an emitter.</summary>
    /// <param name="layout">The layout whose operations the sites are.</param>
    public SiteEmitter(OpsLayout layout)
    {
        ArgumentNullException.ThrowIfNull(layout);
        Layout = layout;
    }

    /// <summary>The layout.</summary>
    public OpsLayout Layout { get; }

    /// <summary>Number of sites waiting for their block.</summary>
    public int Count => _sites.Count;

    internal ReadOnlySpan<EmittedSite> Sites => CollectionsMarshal.AsSpan(_sites);

    internal Assembler? Assembler { get; private set; }

    /// <summary>Emits a site: a call (or jump) through the slot that is one instruction and ends exactly where the site ends.</summary>
    /// <param name="assembler">A 64-bit assembler.</param>
    /// <param name="slot">The operation.</param>
    /// <param name="budget">
    /// Length in bytes: 6 to 15. Longer ones (to 254) can be changed only at quiescence. Shorter bodies are padded by prefixes, longer ones
    /// go out of line.
    /// </param>
    /// <param name="clobbers">What a body may destroy; what a function of the slot's convention may destroy, where nothing is said.</param>
    /// <param name="placement">Where the site may come to lie.</param>
    /// <param name="traits">Further demands.</param>
    /// <param name="forwarding">
    /// Whether the site gets a forwarding island, so that executors who meet its guard run the operation through the slot and do not wait.
    /// Emitted by
    /// <see cref="EmitForwarding"/> or behind the block, and used if it comes to lie within 127 bytes.
    /// </param>
    /// <param name="argument">
    /// What the site passes to its operation, for instance <c>argument: pc</c>. Costs nothing where the operation is a nop or a body that
    /// does not read its register. For budgets up to 15.
    /// </param>
    /// <returns>The site's ticket.</returns>
    /// <exception cref="PatchException">
    /// The slot is of another layout (PV2004) or no function (PV1007); the assembler is not the one before (PV8014); the argument can't be
    /// passed (PV8045).
    /// </exception>
    public SiteTicket Emit(
        Assembler assembler,
        OpSlot slot,
        int budget = PrefixPadding.IndirectLength,
        RegisterSet? clobbers = null,
        SitePlacement placement = SitePlacement.WithinCacheLine,
        SiteTraits traits = SiteTraits.None,
        bool forwarding = false,
        SiteArgument argument = default) =>
        Emit(assembler, slot, budget, clobbers, placement, traits, forwarding, start: -1, argument);

    /// <summary>As the public form, at a chosen place in a 64-byte line: for tests, which need every one.</summary>
    internal SiteTicket Emit(
        Assembler assembler, OpSlot slot, int budget, RegisterSet? clobbers, SitePlacement placement, SiteTraits traits, bool forwarding,
        int start, SiteArgument argument = default)
    {
        ArgumentNullException.ThrowIfNull(slot);
        ArgumentOutOfRangeException.ThrowIfLessThan(budget, PrefixPadding.IndirectLength);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(budget, PatchSite.MaxBudget);
        int longest = placement switch { SitePlacement.InsideAligned8 => 8, SitePlacement.InsideAligned16 => 16, _ => PatchSite.MaxBudget };
        ArgumentOutOfRangeException.ThrowIfGreaterThan(budget, longest);
        CheckSlot(slot);
        if (WhyNoCall(slot, traits) is string why)
        {
            throw new PatchException(Misuse(why));
        }

        RegisterSet allowed = clobbers ?? slot.Convention.DestroyedBy(64);
        ArgumentCode load = argument.At(slot, budget, allowed);
        Bind(assembler);
        var kind = new PatchSite(VirtualAddress.Zero, slot.Index, budget, allowed, traits);
        int first = assembler.Instructions.Count;
        _sites.Add(new EmittedSite(
            first, load.IsNone ? kind : kind.WithArgument(), placement, forwarding, start, EmittedSite.EmitPlaceholder(assembler, budget))
        {
            Argument = load,
        });
        return new SiteTicket(_sites.Count - 1);
    }

    /// <summary>
    /// Emits the forwarding islands that sites so far have asked for. Call it where control does not come by falling through: behind a jump
    /// or a return, at most 100 bytes from the sites.
    /// </summary>
    /// <param name="assembler">The sites' assembler.</param>
    /// <exception cref="PatchException">The assembler is not the one before (PV8014).</exception>
    public void EmitForwarding(Assembler assembler)
    {
        Bind(assembler);
        for (; _withoutIsland < _sites.Count; _withoutIsland++)
        {
            if (_sites[_withoutIsland] is { Forwarding: true } site)
            {
                _sites[_withoutIsland] = site with
                {
                    Island = assembler.Instructions.Count,
                    IslandPlaceholder = EmittedSite.EmitPlaceholder(assembler, EmittedSite.IslandLength),
                };
            }
        }
    }

    /// <summary>
    /// Forgets all sites, for an assembler that was reset. Until it is, its code can't be put into an arena: its sites have no owner.
    /// </summary>
    public void Clear()
    {
        _sites.Clear();
        _outOfLine.Clear();
        _withoutIsland = 0;
        Assembler = null;
    }

    internal static PatchDiagnostic Misuse(string message) => PatchDiagnostic.Error(DiagnosticCodes.EmitterMisuse, message);

    /// <summary>Why a site can't be a call through its slot, which is what every live site is until it is patched.</summary>
    internal static string? WhyNoCall(OpSlot slot, SiteTraits traits) =>
        slot.Kind == SlotKind.Call && (!slot.Convention.HasStack || (traits & SiteTraits.NoStack) != 0)
            ? $"a site of {slot} would call through its slot, and there is no stack" : null;

    private void CheckSlot(OpSlot slot)
    {
        if (slot.Index >= Layout.Count || !ReferenceEquals(Layout[slot.Index], slot))
        {
            throw new PatchException(PatchDiagnostic.Error(
                DiagnosticCodes.WrongLayout, $"the slot {slot} is of another layout") with
            { Expected = Layout.Name });
        }

        if (slot.Kind == SlotKind.Data)
        {
            throw new PatchException(PatchDiagnostic.Error(DiagnosticCodes.SiteDataSlot, $"the slot {slot} is data, which no code calls"));
        }
    }

    private void Bind(Assembler assembler)
    {
        ArgumentNullException.ThrowIfNull(assembler);
        if (assembler.Bitness != 64)
        {
            throw new PatchException(
                Misuse("live sites are 64-bit code") with { Found = $"an assembler for {assembler.Bitness}-bit code" });
        }

        if (Assembler is not null && !ReferenceEquals(Assembler, assembler))
        {
            throw new PatchException(
                Misuse("the emitter holds sites of another assembler") with { Help = "Emit that one's block first, or call Clear." });
        }

        Assembler = assembler;
    }
}
