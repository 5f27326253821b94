using PvPatch.Machine;

namespace PvPatch.Linux.BootText;

/// <summary>Processor features and bugs as the kernel sees them (<c>boot_cpu_data.x86_capability</c>), each known or not.</summary>
/// <param name="Values">A bit each; feature number = word*32 + bit. Bugs follow the features.</param>
/// <param name="Known">The bits of <paramref name="Values"/> that are known, as many words.</param>
internal sealed record FeatureWords(IReadOnlyList<uint> Values, IReadOnlyList<uint> Known)
{
    /// <summary>X86_FEATURE_ALWAYS, word 3 bit 21: set on every machine.</summary>
    public const int Always = (3 * 32) + 21;

    /// <summary>No feature is known but the one that every machine has.</summary>
    public static FeatureWords Unknown { get; } = new([], []);

    /// <summary>All bits are known.</summary>
    public static FeatureWords Of(uint[] words) => new(words, [.. words.Select(static _ => uint.MaxValue)]);

    /// <summary>Whether the machine has a feature.</summary>
    /// <param name="feature">The number.</param>
    /// <returns><see langword="null"/> where it is not known, or the number is beyond the words.</returns>
    public bool? Has(int feature)
    {
        int word = feature >> 5;
        uint bit = 1u << (feature & 31);
        return feature < 0 ? null
            : word < Values.Count && word < Known.Count && (Known[word] & bit) != 0 ? (Values[word] & bit) != 0
            : feature == Always ? true : null;
    }
}

/// <summary>
/// What decides the bytes of a kernel's text besides its file: features, keys, targets. Plain data; what is not known is
/// <see langword="null"/> or absent. It is read from memory, inferred from text, or predicted.
/// </summary>
/// <remarks>
/// Addresses are link addresses: those of the running kernel less <see cref="Slide"/>, also where they lie outside the image (modules, ITS
/// pages). Distances between them are those of the running kernel.
/// </remarks>
internal sealed class BootState
{
    /// <summary>The KASLR slide in bytes; <see langword="null"/> where it is not known.</summary>
    public long? Slide { get; init; } = 0;

    /// <summary>The features.</summary>
    public FeatureWords Features { get; init; } = FeatureWords.Unknown;

    /// <summary><c>key->enabled</c> by address of the static key. What is absent is not known.</summary>
    public IReadOnlyDictionary<VirtualAddress, int> Keys { get; init; } = new Dictionary<VirtualAddress, int>();

    /// <summary>
    /// <c>key->func</c> by address of the static-call key; <see cref="VirtualAddress.Zero"/> for NULL. What is absent is not known.
    /// </summary>
    public IReadOnlyDictionary<VirtualAddress, VirtualAddress> StaticCalls { get; init; } =
        new Dictionary<VirtualAddress, VirtualAddress>();

    /// <summary>
    /// What the words of the slots hold, by slot index of the kernel's layout; <see cref="VirtualAddress.Zero"/> for NULL.
    /// </summary>
    public IReadOnlyList<VirtualAddress?> Slots { get; init; } = [];

    /// <summary>The function that returns jump to (<c>x86_return_thunk</c>).</summary>
    public VirtualAddress? ReturnThunk { get; init; }

    /// <summary>Whether the kernel runs with lock prefixes patched out (<c>uniproc_patched</c>).</summary>
    public bool? IsUniprocessor { get; init; }

    /// <summary>The nops a kernel to 5.12 chose by processor (<c>ideal_nops</c>); later kernels have one kind.</summary>
    public NopStyle? Nops { get; init; }

    /// <summary>
    /// Values of runtime constants by symbol, as the kernel holds them: not less the slide. What is absent is not known.
    /// </summary>
    public IReadOnlyDictionary<string, ulong> RuntimeConstants { get; init; } = new Dictionary<string, ulong>();

    /// <summary>The first page of ITS thunks; <see langword="null"/> where there is none or it is not known.</summary>
    public VirtualAddress? ItsPage { get; init; }
}
