namespace PvPatch.Linux.Symbols.Kallsyms;

/// <summary>Encoding of an address in the four bytes per symbol of <c>kallsyms_offsets</c>.</summary>
internal enum KallsymsAddressForm
{
    /// <summary>Base plus an unsigned offset: 4.6 to 6.19, on i386 and wherever the next one is not used.</summary>
    BaseRelative,

    /// <summary>
    /// 4.6 to 6.14 on x86-64 with SMP, whose per-CPU variables were linked from address 0 on: 0 and positive numbers are addresses,
    /// negative ones go up from base by -1 minus the number.
    /// </summary>
    AbsolutePerCpu,

    /// <summary>Since 7.0: signed, from the place where the number itself stands. There is no base any more.</summary>
    PlaceRelative,

    /// <summary>Since 7.0, 32-bit kernels that cannot be moved: the address itself.</summary>
    Absolute,
}
