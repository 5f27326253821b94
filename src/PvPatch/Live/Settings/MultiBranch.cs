using System.Globalization;

namespace PvPatch.Live;

/// <summary>
/// A choice between several ways, compiled into the code: each of its sites is one jump to the label of the way chosen, or nothing where
/// that way falls through. One store a site changes it, however many ways there are.
/// </summary>
/// <remarks>
/// Sites are emitted by <see cref="SiteEmitter.Branch(Iced.Intel.Assembler, MultiBranch, IReadOnlyList{Iced.Intel.Label}, int)"/>.
/// </remarks>
public sealed class MultiBranch : LiveSetting
{
    /// <summary>No way is chosen: every site falls through.</summary>
    internal const long Nowhere = -1;

    /// <summary>Makes a choice.</summary>
    /// <param name="name">A name for reports and plans.</param>
    /// <param name="ways">Number of ways: each site has as many labels.</param>
    /// <param name="way">The way chosen at first; <see langword="null"/> where sites fall through.</param>
    public MultiBranch(string name, int ways, int? way = null)
        : base(name, way ?? Nowhere)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(ways, 1);
        Ways = ways;
        CheckWay(way);
    }

    /// <summary>Number of ways.</summary>
    public int Ways { get; }

    /// <summary>The way chosen; <see langword="null"/> where sites fall through.</summary>
    public int? Way => Value == Nowhere ? null : (int)Value;

    internal override string Show(long value) => value == Nowhere ? "falls through" : value.ToString(CultureInfo.InvariantCulture);

    internal void CheckWay(int? way)
    {
        if (way is int number)
        {
            ArgumentOutOfRangeException.ThrowIfNegative(number, nameof(way));
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(number, Ways, nameof(way));
        }
    }
}
