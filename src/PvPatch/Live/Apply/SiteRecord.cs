using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using Iced.Intel;
using PvPatch.Machine;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>How a site can be written while other threads run it.</summary>
public enum SiteClass : byte
{
    /// <summary>Inside an aligned 8 bytes: one 8-byte compare-and-swap.</summary>
    Atomic8,

    /// <summary>Inside an aligned 16 bytes, on a processor with AVX: one aligned 16-byte store.</summary>
    Atomic16,

    /// <summary>At most 8 bytes inside a 64-byte line: one 8-byte store. Only with <see cref="ArenaOptions.TrustCacheLines"/>.</summary>
    Line,

    /// <summary>
    /// Anything else up to 15 bytes whose first two lie inside an aligned 8: guard, tail, head, with a barrier behind each.
    /// </summary>
    Guarded,

    /// <summary>Only while no thread is in generated code.</summary>
    QuiescentOnly,
}

/// <summary>
/// What is remembered of a live site: 20 bytes. Where, what kind, and the first eight bytes it holds now (zero behind its length); its
/// block has the rest, if there is any. From it follows how the site can be written while threads may be in it: asked when it is planned,
/// and again by who writes.
/// </summary>
[StructLayout(LayoutKind.Sequential, Pack = 4, Size = SizeInBytes)]
internal struct SiteRecord
{
    public const int SizeInBytes = 20;

    /// <summary>The longest live site: an x86 instruction has at most 15 bytes (SDM volume 2, 2.3.11).</summary>
    public const int MaxLiveLength = SiteBytes.LongestInstruction;

    /// <summary>Bytes of a cache line.</summary>
    public const int LineSize = 64;

    /// <summary>From the arena's start.</summary>
    public uint Offset;

    /// <summary>Index in the slot table's kinds.</summary>
    public int Kind;

    private byte _classAndState;
    private byte _formAndAction;

    /// <summary>From the end of a two-byte jump at the site's start to its forwarding island; 0 where it has none.</summary>
    public sbyte Forward;

    private byte _reason;

    /// <summary>Bytes 0 to 7 of what is there.</summary>
    public ulong Low;

    /// <summary>Notes what a batch made of the site.</summary>
    public void Set(LiveSiteState state, LiveForm form, PatchAction action, PatchReason reason)
    {
        State = state;
        _formAndAction = (byte)((int)form | (int)action << 3);
        _reason = (byte)reason;
    }

    public SiteClass Class
    {
        readonly get => (SiteClass)(_classAndState & 7);
        set => _classAndState = (byte)((_classAndState & ~7) | (int)value);
    }

    public LiveSiteState State
    {
        readonly get => (LiveSiteState)(_classAndState >> 3 & 7);
        set => _classAndState = (byte)((_classAndState & ~0x38) | (int)value << 3);
    }

    /// <summary>
    /// Whether the original bytes are known by the block: the host's own, or those of a site with an argument; else they follow from the
    /// kind.
    /// </summary>
    public bool IsForeign
    {
        readonly get => (_classAndState & 0x40) != 0;
        set => _classAndState = (byte)((_classAndState & ~0x40) | (value ? 0x40 : 0));
    }

    public readonly PatchReason Reason => (PatchReason)_reason;

    public readonly LiveForm Form => (LiveForm)(_formAndAction & 7);

    public readonly PatchAction Action => (PatchAction)(_formAndAction >> 3);

    /// <summary>Whether aligned 16-byte stores are atomic: on processors with AVX (SDM volume 3, 8.1.1).</summary>
    public static bool HasAtomic16 => Avx.IsSupported;

    /// <summary>The class of a site.</summary>
    /// <param name="address">Where the site begins.</param>
    /// <param name="length">Its bytes.</param>
    /// <param name="single">Whether it holds one instruction, and a call's return address is its end.</param>
    /// <param name="atomic16">Whether 16-byte stores are atomic.</param>
    /// <param name="trustLines">Whether a store inside a line counts as one event.</param>
    public static SiteClass Classify(VirtualAddress address, int length, bool single, bool atomic16, bool trustLines)
    {
        if (!single || length is < 1 or > MaxLiveLength)
        {
            return SiteClass.QuiescentOnly;
        }

        return Fits(address, length, 8) ? SiteClass.Atomic8
            : atomic16 && Fits(address, length, 16) ? SiteClass.Atomic16
            : trustLines && length <= 8 && Fits(address, length, LineSize) ? SiteClass.Line
            : Fits(address, 2, 8) ? SiteClass.Guarded
            : SiteClass.QuiescentOnly;
    }

    /// <summary>Whether bytes lie inside an aligned stretch.</summary>
    public static bool Fits(VirtualAddress address, int length, int alignment) =>
        (int)(address.Value & (ulong)(alignment - 1)) + length <= alignment;

    /// <summary>
    /// The way to a forwarding island, where executors forwarded there find in the slot what does the operation; 0 where there is none, and
    /// they wait at the guard.
    /// </summary>
    /// <param name="bound">What its slot is switched to while the site is written: before nothing is, it holds a trap.</param>
    public readonly sbyte UsableForward(BackendBinding? bound) => bound is null ? (sbyte)0 : Forward;

    /// <summary>Whether a site can be changed live.</summary>
    /// <param name="arena">The arena.</param>
    /// <param name="bytes">What it holds.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <param name="forward">Its usable way to a forwarding island.</param>
    public readonly bool CanChangeLive(CodeArena arena, SiteBytes bytes, int length, sbyte forward) =>
        Class switch
        {
            SiteClass.QuiescentOnly => false,
            _ when Form == LiveForm.InPlace => CanDrain(arena, bytes, length, forward),

            // A guard that spins must be taken down in the native call that put it up.
            SiteClass.Guarded => forward != 0 || !arena.Native.Barrier.IsZero,
            _ => true,
        };

    /// <summary>Why a site can't be changed live.</summary>
    public static PatchDiagnostic NeedsQuiescence(LiveSite site)
    {
        bool several = site.Form == LiveForm.InPlace;
        bool managed = !several && site.Class == SiteClass.Guarded;
        CodeArena arena = site.Block.Arena;
        string cause = managed
            ? $"the site of {site.Name} can't be changed live: only managed code can run the barrier of this system ({arena.Barrier}), "
                + $"and that must not hold a guard at which threads wait"
            : $"the site of {site.Name} can't be changed while threads may be in it";
        return PatchDiagnostic.Error(DiagnosticCodes.NeedsQuiescence, cause) with
        {
            SiteIndex = site.Index,
            Address = site.Address,
            Found =
                $"class {site.Class}, {(several ? "several instructions" : "one instruction")}, {(site.HasForwarding ? "a" : "no")} "
                + $"forwarding island",
            Help = site.Slot is null // where such a site lies and that it has no forwarding island is not the host's choice
                ? "Switch with SwitchMode.Quiescent."
                : site.Class == SiteClass.QuiescentOnly
                ? "Switch with SwitchMode.Quiescent; or emit the site with a placement and at most 15 bytes."
                : managed
                ? "Switch with SwitchMode.Quiescent; or emit the site with SitePlacement.InsideAligned8 or InsideAligned16, or with "
                + "forwarding and switch its slot first."
                : "Switch with SwitchMode.Quiescent; or emit the site with forwarding and register executors.",
        };
    }

    /// <summary>Why a site can't do what only its slot could.</summary>
    public static PatchDiagnostic NeedsSlot(LiveSite site, PatchReason reason) =>
        PatchDiagnostic.Error(DiagnosticCodes.SiteNeedsSlot,
            $"the site of {site.Name} can do this through its slot only, and the slot does something else") with
        {
            SiteIndex = site.Index,
            Address = site.Address,
            Found = reason.ToString(),
            Help = "Switch the slot, or all sites, to the backend.",
        };

    /// <summary>A site does not hold what it is known to hold.</summary>
    public static PatchDiagnostic Unexpected(LiveSite site, byte[] found, byte[] expected) =>
        PatchDiagnostic.Error(
            DiagnosticCodes.UnexpectedLiveBytes, "the site holds bytes that were not put there by this arena's patchers") with
        {
            SiteIndex = site.Index,
            Address = site.Address,
            Found = HexBytes.Format(found),
            Expected = HexBytes.Format(expected),
            Help = "Something else writes the code: a debugger's breakpoint, or a host that patches by hand.",
        };

    /// <summary>Whether executors can be forwarded around a body of several instructions until none is inside.</summary>
    private readonly bool CanDrain(CodeArena arena, SiteBytes bytes, int length, sbyte forward)
    {
        // Executors are forwarded by the first two bytes while the body drains; who is behind a first instruction of one byte would come
        // back into the middle of these.
        return forward != 0 && arena.Executors.IsTracking && length >= 2
            && Fits(arena.Address + Offset, 2, 8) && FirstLength(bytes, length) >= 2;
    }

    private static int FirstLength(SiteBytes bytes, int length)
    {
        var decoder = Decoder.Create(64, bytes.ToArray(length));
        return decoder.Decode().Length;
    }
}
