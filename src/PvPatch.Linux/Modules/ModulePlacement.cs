namespace PvPatch.Linux.Modules;

/// <summary>Run addresses of a module's sections in a kernel. The address of <c>.text</c> is required.</summary>
/// <remarks>
/// Addresses are those of a kernel at its link addresses. In a kernel that KASLR moved, addresses of modules include the slide: subtract
/// it.
/// </remarks>
public sealed record ModulePlacement
{
    /// <summary>
    /// Run address of <c>.text</c>: <c>/sys/module/NAME/sections/.text</c>. The address in <c>/proc/modules</c> is the same in modules
    /// whose first section of code is <c>.text</c>.
    /// </summary>
    public VirtualAddress? Text { get; init; }

    /// <summary>
    /// Run addresses by section name, as the files in <c>/sys/module/NAME/sections</c> say them. Takes precedence over <see cref="Text"/>.
    /// Sections that are not named are laid out: code around <c>.text</c> in the kernel's order, all others behind those with addresses.
    /// </summary>
    public IReadOnlyDictionary<string, VirtualAddress> Sections { get; init; } = new Dictionary<string, VirtualAddress>();

    /// <summary>Makes a placement from the address of <c>.text</c> alone.</summary>
    /// <param name="text">Run address of <c>.text</c>.</param>
    /// <returns>The placement.</returns>
    public static ModulePlacement At(VirtualAddress text) => new() { Text = text };
}
