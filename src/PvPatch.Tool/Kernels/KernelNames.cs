using PvPatch.Linux.Elf;
using PvPatch.Linux.Kernel;
using PvPatch.Ops;

namespace PvPatch.Tool.Kernels;

/// <summary>Names for addresses of a kernel: the words of its ops table, and its functions where the file has symbols.</summary>
internal sealed class KernelNames
{
    private readonly Dictionary<ulong, string> _names = [];
    private readonly ElfSymbolTable? _symbols;

    public KernelNames(KernelImage image)
    {
        if (image.Elf.TryReadSymbols(out _symbols, out _))
        {
            for (int i = 0; i < _symbols.Count; i++)
            {
                if (_symbols[i].Type == ElfSymbolType.Function)
                {
                    _names.TryAdd(_symbols[i].Value.Value, _symbols.GetName(i));
                }
            }
        }

        foreach (OpSlot slot in image.Layout.Slots)
        {
            _names[(image.OpsTable + ((long)slot.Index * (image.Elf.Bitness / 8))).Value] = slot.Name;
        }
    }

    /// <summary>The name at an address.</summary>
    public string? NameOf(ulong address) => _names.GetValueOrDefault(address);

    /// <summary>The address of a function.</summary>
    public bool TryFind(string symbol, out VirtualAddress address)
    {
        bool found = false;
        ElfSymbol entry = default;
        if (_symbols is not null)
        {
            found = _symbols.TryFind(symbol, out entry);
        }

        address = entry.Value;
        return found;
    }
}
