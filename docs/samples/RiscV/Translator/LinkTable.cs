using PvPatch;
using RiscV.Host;

namespace RiscV.Translator;

/// <summary>
/// For each word of guest code the host address of the block that begins there, behind the guest's <see cref="CpuState"/>. Regions jump to
/// each other through this table, so linking them is a store of data: code need not change for it, and an address computed at run time is
/// as easy as a fixed one.
/// </summary>
internal sealed unsafe class LinkTable
{
    private readonly CpuState* _cpu;
    private readonly ulong _untranslated;

    public LinkTable(CpuState* cpu, VirtualAddress untranslated)
    {
        _cpu = cpu;
        _untranslated = untranslated.Value;
        Links.Fill(_untranslated);
    }

    private Span<ulong> Links => new(_cpu + 1, (int)_cpu->CodeWords);

    /// <summary>Whether there can be code at a guest address; and its host address, 0 where it is not translated.</summary>
    public bool TryGet(ulong pc, out ulong block)
    {
        ulong offset = pc - _cpu->CodeStart;
        bool inside = (offset & 3) == 0 && offset / 4 < _cpu->CodeWords;
        block = inside && At(pc) != _untranslated ? At(pc) : 0;
        return inside;
    }

    /// <summary>Lets all ways to a region's blocks lead into it, but for those that lead into another one already.</summary>
    public void Add(TranslatedRegion region)
    {
        foreach ((ulong pc, ulong address) in region.Entries)
        {
            At(pc) = At(pc) == _untranslated ? address : At(pc);
        }
    }

    /// <summary>Lets no way lead into a region any more; whoever comes there is given to the dispatch loop.</summary>
    public void Remove(TranslatedRegion region)
    {
        foreach ((ulong pc, ulong address) in region.Entries)
        {
            At(pc) = At(pc) == address ? _untranslated : At(pc);
        }
    }

    private ref ulong At(ulong pc) => ref Links[(int)((pc - _cpu->CodeStart) / 4)];
}
