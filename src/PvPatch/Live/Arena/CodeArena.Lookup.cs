using System.Diagnostics.CodeAnalysis;

namespace PvPatch.Live;

// What is where.
public sealed partial class CodeArena
{
    /// <summary>The blocks that were not retired, a copy.</summary>
    public IReadOnlyList<CodeBlock> Blocks => Registry.ToArray();

    /// <summary>
    /// The site whose operation an instruction belongs to: one of the site's own bytes, of one of its islands, or of its forwarding island. For crash handlers and
    /// profilers: takes no lock, allocates nothing, and may be called from any thread while others emit, patch and retire.
    /// </summary>
    /// <param name="address">A run address: of an instruction, or anywhere inside one.</param>
    /// <param name="site">The site. Of a block that was retired too, until its bytes are reused; see <see cref="LiveSite.State"/>.</param>
    /// <returns>Whether it belongs to one. Functions the arena makes for slots and thunks belong to none.</returns>
    public bool TryFindSite(VirtualAddress address, out LiveSite site) => SiteFinder.TryFind(this, address, out site);

    /// <summary>
    /// The site that made a call, by the return address the call left: for functions called from sites. As <see cref="TryFindSite"/> otherwise.
    /// </summary>
    /// <param name="returnAddress">
    /// The return address: <see cref="LiveSite.End"/> for a call in the site itself. One in a thunk, where a target destroys more than its site allows, tells nothing.
    /// </param>
    /// <param name="site">The site.</param>
    /// <returns>Whether a site made the call.</returns>
    public bool TryFindCaller(VirtualAddress returnAddress, out LiveSite site) => TryFindSite(returnAddress + -1, out site);

    /// <summary>The block at an address, also a retired one until its bytes are reused. Takes no lock and allocates nothing.</summary>
    /// <param name="address">A run address.</param>
    /// <param name="block">The block.</param>
    /// <returns>Whether there is one.</returns>
    public bool TryFindBlock(VirtualAddress address, [NotNullWhen(true)] out CodeBlock? block) => Registry.TryFind(address, out block);

    /// <summary>A stretch of the arena as assembly, with what is known of each address: sites, their class, state and form, slots, islands.</summary>
    /// <param name="address">Run address of the first instruction.</param>
    /// <param name="length">Bytes.</param>
    /// <returns>One line an instruction.</returns>
    /// <exception cref="ArgumentOutOfRangeException">The stretch is not inside the arena's committed code.</exception>
    public string Dump(VirtualAddress address, int length)
    {
        CheckUsable();
        return ArenaDump.Format(this, address, length);
    }

    /// <summary>A block as assembly. See <see cref="Dump(VirtualAddress, int)"/>.</summary>
    /// <param name="block">A block of this arena.</param>
    /// <returns>One line an instruction.</returns>
    public string Dump(CodeBlock block)
    {
        ArgumentNullException.ThrowIfNull(block);
        return Dump(block.Address, block.Length);
    }
}
