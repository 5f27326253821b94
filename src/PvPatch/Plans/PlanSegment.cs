namespace PvPatch.Plans;

/// <summary>A segment of the image a plan was made for: what names the section of each site.</summary>
/// <param name="Name">The segment's name.</param>
/// <param name="Address">Run address of its first byte.</param>
/// <param name="Length">Its length in bytes.</param>
public readonly record struct PlanSegment(string Name, VirtualAddress Address, long Length)
{
    internal bool Contains(VirtualAddress address) => address >= Address && address.Value - Address.Value < (ulong)Length;
}
