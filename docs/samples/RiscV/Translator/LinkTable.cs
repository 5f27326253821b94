using System.Runtime.InteropServices;
using PvPatch;
using RiscV.Host;

namespace RiscV.Translator;

/// <summary>
/// For each word of guest code the host address of its block. Blocks jump to each other through this table, so linking them is a store of
/// data: code need not change for it, and an address computed at run time is as easy as a fixed one.
/// </summary>
internal sealed unsafe class LinkTable : IDisposable
{
    private readonly CpuState* _cpu;
    private readonly VirtualAddress _untranslated;

    public LinkTable(CpuState* cpu, VirtualAddress untranslated)
    {
        _cpu = cpu;
        _untranslated = untranslated;
        cpu->Links = (ulong*)NativeMemory.Alloc((nuint)cpu->CodeWords + 1, sizeof(ulong));
        new Span<ulong>(cpu->Links, (int)cpu->CodeWords).Fill(untranslated.Value);
    }

    /// <summary>The block that begins at a guest address; whether there can be one.</summary>
    public bool TryGet(ulong pc, out ulong block)
    {
        ulong offset = pc - _cpu->CodeStart;
        bool inside = (offset & 3) == 0 && offset / 4 < _cpu->CodeWords;
        block = inside ? _cpu->Links[offset / 4] : 0;
        return inside;
    }

    public void Set(ulong pc, ulong block) => _cpu->Links[(pc - _cpu->CodeStart) / 4] = block;

    /// <summary>Lets no block lead to a guest address any more; whoever comes there is given to the dispatch loop.</summary>
    public void Clear(ulong pc) => Set(pc, _untranslated.Value);

    public void Dispose()
    {
        NativeMemory.Free(_cpu->Links);
        _cpu->Links = null;
    }
}
