using System.Globalization;

namespace PvPatch.Plans;

/// <summary>In what a site differs between two plans.</summary>
[Flags]
public enum PlanDifferenceKinds
{
    /// <summary>In nothing.</summary>
    None = 0,

    /// <summary>Only the first plan has a site of this address and length.</summary>
    OnlyInFirst = 1,

    /// <summary>Only the second plan has one.</summary>
    OnlyInSecond = 2,

    /// <summary>The original bytes differ: the plans are of different images.</summary>
    OldBytes = 4,

    /// <summary>The new bytes differ.</summary>
    NewBytes = 8,

    /// <summary>The plans do different things, or leave the site alone for different reasons.</summary>
    Action = 16,

    /// <summary>The site stands for another slot.</summary>
    Label = 32,

    /// <summary>A call or jump goes elsewhere.</summary>
    Target = 64,
}

/// <summary>A site that differs between two plans.</summary>
/// <param name="Address">Its run address.</param>
/// <param name="Length">Its length in bytes.</param>
/// <param name="Kinds">In what it differs.</param>
/// <param name="First">What the first plan says of it, where it has it.</param>
/// <param name="Second">What the second plan says of it, where it has it.</param>
public sealed record PlanDifference(VirtualAddress Address, int Length, PlanDifferenceKinds Kinds, SiteDecision? First, SiteDecision? Second)
{
    /// <summary>One line: address, slot, and of both plans what is done and the new bytes.</summary>
    /// <returns>One line of text.</returns>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture, $"{Address} {(First ?? Second)?.Label}: {Describe(First)} | {Describe(Second)} ({Kinds})");

    private static string Describe(SiteDecision? site) => site is SiteDecision there
        ? $"{there.Action}{(there.Reason == PatchReason.None ? "" : $" ({there.Reason})")} {HexBytes.Format(there.NewBytes)}"
        : "no site";
}
