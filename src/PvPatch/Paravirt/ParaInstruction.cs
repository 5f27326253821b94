using PvPatch.Plans;

namespace PvPatch.Paravirt;

/// <summary>One record of a <c>.parainstructions</c> table, as stored.</summary>
/// <param name="Address">Run address of the site's first byte (the field <c>instr</c>).</param>
/// <param name="Type">The slot's number (the field <c>type</c> or <c>instrtype</c>).</param>
/// <param name="Length">The site's length in bytes (the field <c>len</c>).</param>
/// <param name="Clobbers">The clobber word; 0 where the record has none.</param>
public readonly record struct ParaInstruction(VirtualAddress Address, byte Type, byte Length, ushort Clobbers)
{
    /// <summary>The site this record describes.</summary>
    /// <param name="clobbers">What the clobber word means in that kernel.</param>
    /// <returns>The site; its length is not checked yet (<see cref="SiteTable"/> does).</returns>
    public PatchSite ToSite(KernelClobberEncoding clobbers)
    {
        ArgumentNullException.ThrowIfNull(clobbers);
        return new PatchSite(Address, Type, Length, clobbers.Decode(Clobbers));
    }
}
