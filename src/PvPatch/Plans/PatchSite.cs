using System.Globalization;
using PvPatch.Machine;

namespace PvPatch.Plans;

/// <summary>What a site demands beyond its budget and clobbers.</summary>
[Flags]
public enum SiteTraits
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>
    /// The stack pointer is not usable there (a red zone below it, or a stack that is not the code's own): no push, no call.
    /// The kernel's SWAPGS_UNSAFE_STACK sites are of this kind.
    /// </summary>
    NoStack = 1,
}

/// <summary>One patchable place: run address, slot, budget and what the surrounding code lets a patch destroy. 16 bytes.</summary>
public readonly record struct PatchSite
{
    /// <summary>
    /// The longest budget: the length field of the kernel's records is one byte and its patch buffer has 254 bytes (2.6.23 and later).
    /// </summary>
    public const int MaxBudget = BodyBuilder.MaxLength;

    private const byte ArgumentBit = 0x80; // of the traits: live sites only

    private readonly ulong _address;
    private readonly ushort _slot;
    private readonly byte _budget;
    private readonly byte _traits;
    private readonly uint _clobbers;

    /// <summary>Makes a site.</summary>
    /// <param name="address">Run address of its first byte.</param>
    /// <param name="slot">Index of its slot in the layout (the kernel's "type").</param>
    /// <param name="budget">Its length in bytes; a <see cref="SiteTable"/> takes 1 to <see cref="MaxBudget"/>.</param>
    /// <param name="clobbers">What a patch may destroy there.</param>
    /// <param name="traits">Further demands.</param>
    /// <exception cref="ArgumentOutOfRangeException">
    /// <paramref name="slot"/> is not 0–65535 or <paramref name="budget"/> not 0–255.
    /// </exception>
    public PatchSite(VirtualAddress address, int slot, int budget, RegisterSet clobbers, SiteTraits traits = SiteTraits.None)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(slot);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(slot, ushort.MaxValue);
        ArgumentOutOfRangeException.ThrowIfNegative(budget);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(budget, byte.MaxValue);
        _address = address.Value;
        _slot = (ushort)slot;
        _budget = (byte)budget;
        _traits = (byte)((int)traits & ~ArgumentBit);
        _clobbers = clobbers.Bits;
    }

    private PatchSite(PatchSite site, VirtualAddress address, byte traits)
    {
        this = site;
        _address = address.Value;
        _traits = traits;
    }

    /// <summary>Run address of the first byte.</summary>
    public VirtualAddress Address => new(_address);

    /// <summary>Index of the slot in the layout.</summary>
    public int Slot => _slot;

    /// <summary>Length in bytes.</summary>
    public int Budget => _budget;

    /// <summary>What a patch may destroy.</summary>
    public RegisterSet Clobbers => RegisterSet.FromBits(_clobbers);

    /// <summary>Further demands.</summary>
    public SiteTraits Traits => (SiteTraits)(_traits & ~ArgumentBit);

    /// <summary>Run address of the first byte behind the site.</summary>
    public VirtualAddress End => new(unchecked(_address + _budget));

    /// <summary>Whether the site passes an argument, which must be loaded before an operation that reads it.</summary>
    internal bool HasArgument => (_traits & ArgumentBit) != 0;

    /// <summary>The key under which decisions are shared: everything but the address.</summary>
    internal ulong DecisionKey => (ulong)_slot << 48 | (ulong)_budget << 40 | (ulong)_traits << 32 | _clobbers;

    /// <summary>The same site with an argument.</summary>
    internal PatchSite WithArgument() => new(this, Address, (byte)(_traits | ArgumentBit));

    /// <summary>The same site at another address.</summary>
    internal PatchSite At(VirtualAddress address) => new(this, address, _traits);

    /// <inheritdoc/>
    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture, $"{Address} slot {Slot} budget {Budget} clobbers {Clobbers}");
}
