using System.Runtime.InteropServices;
using PvPatch.Plans;

namespace PvPatch.Live;

/// <summary>
/// What is remembered of a live site: 20 bytes. Where, what kind, and the first eight bytes it holds now (zero behind its length); its
/// block has the rest, if there is any.
/// </summary>
[StructLayout(LayoutKind.Sequential, Pack = 4, Size = SizeInBytes)]
internal struct SiteRecord
{
    public const int SizeInBytes = 20;

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

    /// <summary>Whether the original bytes are the host's own, kept by the block; else they follow from the kind.</summary>
    public bool IsForeign
    {
        readonly get => (_classAndState & 0x40) != 0;
        set => _classAndState = (byte)((_classAndState & ~0x40) | (value ? 0x40 : 0));
    }

    public readonly PatchReason Reason => (PatchReason)_reason;

    public readonly LiveForm Form => (LiveForm)(_formAndAction & 7);

    public readonly PatchAction Action => (PatchAction)(_formAndAction >> 3);
}
