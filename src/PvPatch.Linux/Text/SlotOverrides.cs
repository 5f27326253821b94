using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using PvPatch.Linux.Symbols;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Text;

/// <summary>
/// Content of slots as given by a user: a JSON object of slot names, each with a symbol, an address in hexadecimal (<c>"0x…"</c>),
/// <c>"nop"</c> for the kernel's empty function, or <c>null</c> for no function.
/// </summary>
public sealed class SlotOverrides
{
    private readonly List<(string Slot, string? Value)> _slots;

    private SlotOverrides(List<(string Slot, string? Value)> slots) => _slots = slots;

    /// <summary>Number of slots with an override.</summary>
    public int Count => _slots.Count;

    /// <summary>Slots with a function, in the order given.</summary>
    internal IEnumerable<string> Functions => _slots.Where(static s => s.Value is not (null or "nop")).Select(static s => s.Slot);

    /// <summary>Reads overrides.</summary>
    /// <param name="utf8">The JSON text.</param>
    /// <param name="overrides">The overrides.</param>
    /// <param name="error">PV6108: the text is not an object of texts.</param>
    /// <returns>Whether the text was read. Slots and symbols are looked up later, when the image is known.</returns>
    public static bool TryRead(
        ReadOnlyMemory<byte> utf8, [NotNullWhen(true)] out SlotOverrides? overrides, [NotNullWhen(false)] out PatchDiagnostic? error)
    {
        overrides = null;
        try
        {
            using JsonDocument document = JsonDocument.Parse(utf8, new JsonDocumentOptions { MaxDepth = 4 });
            if (document.RootElement.ValueKind == JsonValueKind.Object)
            {
                var slots = new List<(string, string?)>();
                foreach (JsonProperty slot in document.RootElement.EnumerateObject())
                {
                    if (slot.Value.ValueKind is not (JsonValueKind.String or JsonValueKind.Null))
                    {
                        error = Bad($"the slot {slot.Name} has no text as its value");
                        return false;
                    }

                    slots.Add((slot.Name, slot.Value.GetString()));
                }

                overrides = new SlotOverrides(slots);
                error = null;
                return true;
            }

            error = Bad("it is not an object");
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            error = Bad(e.Message);
        }

        return false;
    }

    /// <summary>Reads overrides; see <see cref="TryRead"/>.</summary>
    /// <param name="utf8">The JSON text.</param>
    /// <returns>The overrides.</returns>
    /// <exception cref="PatchException">PV6108: the text is not an object of texts.</exception>
    public static SlotOverrides Read(ReadOnlyMemory<byte> utf8) =>
        TryRead(utf8, out SlotOverrides? overrides, out PatchDiagnostic? error) ? overrides : throw new PatchException(error);

    internal void Apply(BackendBuilder backend, KernelSymbols? symbols, VirtualAddress? nop)
    {
        foreach ((string slot, string? value) in _slots)
        {
            Operation now = backend.Get(slot);
            backend.Set(slot, value switch
            {
                null => Operation.Missing,
                "nop" when nop is VirtualAddress empty => Operation.Nop.WithTarget(empty),
                "nop" => Operation.Nop,
                _ => now.Retarget(Resolve(slot, value, symbols), value),
            });
        }
    }

    private static VirtualAddress Resolve(string slot, string value, KernelSymbols? symbols)
    {
        if (value.StartsWith("0x", StringComparison.OrdinalIgnoreCase) && VirtualAddress.TryParse(value, out VirtualAddress address))
        {
            return address;
        }

        PatchDiagnostic? error = null;
        return symbols is not null && symbols.TryResolve(value, out address, out error)
            ? address
            : throw new PatchException(error ?? PatchDiagnostic.Error(KernelDiagnosticCodes.SlotOverridesInvalid,
                $"the function \"{value}\" of the slot {slot} can't be found: the kernel has no symbols"));
    }

    private static PatchDiagnostic Bad(string why) =>
        PatchDiagnostic.Error(KernelDiagnosticCodes.SlotOverridesInvalid, "the slot file cannot be read") with
        {
            Found = why,
            Expected = "{ \"mmu.set_pte\": \"my_set_pte\", \"irq.halt\": \"0xffffffff81000000\", \"mmu.exit_mmap\": \"nop\" }",
        };
}
