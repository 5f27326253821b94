using PvPatch.Machine;
using PvPatch.Mechanisms;

namespace PvPatch.Live;

/// <summary>
/// What a site passes to its operation beyond the registers that the code around it has set: a 64-bit value, the site's own address, or
/// both. It is loaded out of line, and only where the operation may read it.
/// </summary>
/// <param name="Value">The value; <see langword="null"/> where only the address is passed.</param>
public readonly record struct SiteArgument(ulong? Value)
{
    /// <summary>
    /// The general register that gets the value, one that the site allows to be destroyed; <see langword="null"/> for that of the first
    /// argument in the slot's convention. Not one in which the code around the site passes something of its own.
    /// </summary>
    public RegisterSet? Register { get; init; }

    /// <summary>The general register that gets the site's address; <see langword="null"/> where none does.</summary>
    public RegisterSet? AddressRegister { get; init; }

    /// <summary>A value in the register of the first argument.</summary>
    /// <param name="value">The value.</param>
    public static implicit operator SiteArgument(ulong value) => FromUInt64(value);

    /// <summary>A value in the register of the first argument.</summary>
    /// <param name="value">The value.</param>
    /// <returns>The argument.</returns>
    public static SiteArgument FromUInt64(ulong value) => new(value);

    /// <summary>The code that loads it at sites of a slot; none where there is nothing to load.</summary>
    /// <param name="slot">The slot.</param>
    /// <param name="budget">The sites' length in bytes.</param>
    /// <param name="allowed">What the sites allow to be destroyed.</param>
    /// <exception cref="PatchException">A register can't be used, or the site is too long for one instruction (PV8045).</exception>
    internal ArgumentCode At(OpSlot slot, int budget, RegisterSet allowed)
    {
        if (Value is null && AddressRegister is null)
        {
            return Register is null ? default : throw Unfit(slot, "has a register for a value and no value", null);
        }

        if (budget > SiteRecord.MaxLiveLength)
        {
            throw Unfit(slot, "is longer than one instruction: its bodies stand in it, where nothing loads the argument",
                $"{budget} bytes, at most {SiteRecord.MaxLiveLength} are possible");
        }

        RegisterSet value = Value is null ? RegisterSet.None : Register ?? slot.Convention.Argument(0, 64);
        RegisterSet address = AddressRegister ?? RegisterSet.None;
        Check(slot, value, Value is not null, allowed);
        Check(slot, address, AddressRegister is not null, allowed);
        return value == address
            ? throw Unfit(slot, "passes its value and its address in the same register", $"{value}")
            : new ArgumentCode(Value ?? 0, value, address);
    }

    private static void Check(OpSlot slot, RegisterSet register, bool isUsed, RegisterSet allowed)
    {
        if (isUsed && (register.Count != 1 || !RegisterSet.AllGeneral.Except(RegisterSet.Rsp).Contains(register)))
        {
            throw Unfit(slot, "passes its argument in what is not one general register other than rsp", $"{register}");
        }

        if (!allowed.Contains(register))
        {
            throw Unfit(slot, "does not allow the register of its argument to be destroyed", $"{register}; allowed: {allowed}");
        }
    }

    private static PatchException Unfit(OpSlot slot, string why, string? found) =>
        new(PatchDiagnostic.Error(DiagnosticCodes.SiteArgument, $"the site of {slot} {why}") with
        {
            Found = found,
            Help = "Name another register (SiteArgument.Register, AddressRegister), or let the site allow more (clobbers).",
        });
}
