using PvPatch.Machine;

namespace PvPatch.Live;

/// <summary>A site that is to be written: where, from what, to what.</summary>
internal unsafe struct PlannedWrite
{
    /// <summary>The site's first byte in the write view.</summary>
    public byte* Site;

    public SiteBytes Old;

    public SiteBytes New;

    /// <summary>Index of its outcome.</summary>
    public int Outcome;

    public byte Length;

    public SiteClass Class;

    public sbyte Forward;

    /// <summary>Whether it holds several instructions that threads may be inside of.</summary>
    public bool Drain;
}

/// <summary>A site longer than 16 bytes, to be written at quiescence.</summary>
internal readonly record struct LongWrite(CodeBlock Block, int Site, int Outcome, byte[] Old, byte[] New);

/// <summary>A slot that is to hold another function.</summary>
internal readonly record struct SlotWrite(int Slot, VirtualAddress Old, VirtualAddress New);
