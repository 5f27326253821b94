using System.Globalization;
using PvPatch.Linux;
using PvPatch.Linux.Symbols;

namespace PvPatch.Tool.Output;

/// <summary>Names for addresses of a kernel: the words of its ops table, and what its symbols say.</summary>
internal sealed class KernelNames
{
    private readonly Dictionary<ulong, string> _slotWords = [];
    private readonly KernelSymbols? _symbols;

    public KernelNames(KernelImage image)
    {
        _symbols = image.Symbols;
        for (int i = 0; i < image.SlotWords.Count && i < image.Layout.Count; i++)
        {
            _slotWords.TryAdd(image.SlotWords[i].Value, image.Layout[i].Name);
        }
    }

    /// <summary>The name at exactly an address.</summary>
    public string? NameOf(ulong address) =>
        _slotWords.TryGetValue(address, out string? slot) ? slot
        : _symbols is not null && _symbols.TryGetName(address, out string? name, out long offset) && offset == 0 ? name
        : null;

    /// <summary>The function an address lies in, as <c>name+0x12</c>.</summary>
    public string? PlaceOf(VirtualAddress address) =>
        _symbols is not null && _symbols.TryGetName(address, out string? name, out long offset)
            ? string.Create(CultureInfo.InvariantCulture, $"{name}+0x{offset:x}")
            : null;

    /// <summary>The address, and the name at it if there is one.</summary>
    public string Describe(VirtualAddress address) => NameOf(address.Value) is string name ? $"{address} {name}" : address.ToString();

    /// <summary>Finds a place given by the name of a function: <c>native_halt+0x12</c>.</summary>
    /// <param name="place">The place.</param>
    /// <param name="address">Its address.</param>
    /// <param name="error">The reason where there is none; <see langword="null"/> also for a kernel without symbols.</param>
    public bool TryFind(string place, out VirtualAddress address, out PatchDiagnostic? error)
    {
        address = default;
        error = null;
        return _symbols is not null && _symbols.TryResolve(place, out address, out error);
    }
}
