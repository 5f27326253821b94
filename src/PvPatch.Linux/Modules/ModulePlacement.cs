namespace PvPatch.Linux.Modules;

/// <summary>Where the sections of a module lie in a running kernel. At least the address of <c>.text</c> has to be said.</summary>
/// <remarks>
/// Addresses are those of a kernel at its link addresses. A kernel that KASLR moved has its modules at addresses that are moved as
/// well: take off what it was moved by.
/// </remarks>
public sealed record ModulePlacement
{
    /// <summary>
    /// Run address of <c>.text</c>: <c>/sys/module/NAME/sections/.text</c>. The address in <c>/proc/modules</c> is the same in modules
    /// whose first section of code is <c>.text</c>.
    /// </summary>
    public VirtualAddress? Text { get; init; }

    /// <summary>
    /// Run addresses by section name, as the files in <c>/sys/module/NAME/sections</c> say them. Goes before <see cref="Text"/>. Sections
    /// that are not named are laid out: those of code around <c>.text</c> as the kernel does it, all others behind what has an address.
    /// </summary>
    public IReadOnlyDictionary<string, VirtualAddress> Sections { get; init; } = new Dictionary<string, VirtualAddress>();

    /// <summary>Makes a placement of the address of <c>.text</c> alone.</summary>
    /// <param name="text">Run address of <c>.text</c>.</param>
    /// <returns>The placement.</returns>
    public static ModulePlacement At(VirtualAddress text) => new() { Text = text };
}
