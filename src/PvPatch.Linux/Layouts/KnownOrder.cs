using System.Globalization;
using PvPatch.Linux.Eras;
using PvPatch.Mechanisms;

namespace PvPatch.Linux.Layouts;

/// <summary>An order of slots that some releases have in one configuration.</summary>
internal sealed class KnownOrder
{
    private readonly Lazy<OpsLayout> _layout;

    /// <param name="configuration">The architecture and options, as <c>x86-64-5level</c>.</param>
    /// <param name="first">The first release with it.</param>
    /// <param name="last">The last release with it.</param>
    /// <param name="placement">Arrangement of the slots.</param>
    /// <param name="makeLayout">Makes the layout, of the name given.</param>
    public KnownOrder(
        string configuration, KernelRelease first, KernelRelease last, SlotPlacement placement, Func<string, OpsLayout> makeLayout)
    {
        Configuration = configuration;
        First = first;
        Last = last;
        Placement = placement;
        Name = first == last ? $"{first}-{configuration}" : $"{first}-{last}-{configuration}";
        _layout = new Lazy<OpsLayout>(() => makeLayout(Name));
    }

    /// <summary>Releases and configuration: <c>4.20-5.2-x86-64-5level</c>.</summary>
    public string Name { get; }

    public string Configuration { get; }

    public KernelRelease First { get; }

    public KernelRelease Last { get; }

    public SlotPlacement Placement { get; }

    /// <summary>32 or 64.</summary>
    public int Bitness => Configuration.StartsWith("i386", StringComparison.Ordinal) ? 32 : 64;

    /// <summary>The slots; made when first asked for.</summary>
    public OpsLayout Layout => _layout.Value;

    /// <summary>Whether the release is between the first and the last, or a later one of the last one's stable series.</summary>
    public bool Covers(KernelRelease release) => release >= First && (release <= Last || release.IsOfSeries(Last));
}

/// <summary>A release of Linux: 2.6.32, 4.20, 5.10.89. Names such as 6.1.0-18-amd64 are of their first numbers.</summary>
internal readonly record struct KernelRelease(int Major, int Minor, int Patch) : IComparable<KernelRelease>
{
    /// <summary>Reads the numbers that a name starts with; two are enough.</summary>
    public static bool TryParse(ReadOnlySpan<char> text, out KernelRelease release)
    {
        release = default;
        Span<int> numbers = stackalloc int[3];
        int count = 0;
        while (count < 3)
        {
            int length = text.IndexOfAnyExceptInRange('0', '9');
            ReadOnlySpan<char> digits = length < 0 ? text : text[..length];
            if (digits.Length is 0 or > 5)
            {
                break;
            }

            numbers[count++] = int.Parse(digits, NumberStyles.None, CultureInfo.InvariantCulture);
            if (length < 0 || text[length] != '.')
            {
                break;
            }

            text = text[(length + 1)..];
        }

        release = new KernelRelease(numbers[0], numbers[1], numbers[2]);
        return count >= 2;
    }

    public int CompareTo(KernelRelease other) => (Major, Minor, Patch).CompareTo((other.Major, other.Minor, other.Patch));

    /// <summary>Whether two releases are of one stable series: 5.10.1 and 5.10.89; of 2.6 the third number is the release.</summary>
    public bool IsOfSeries(KernelRelease other) => Major == other.Major && Minor == other.Minor && (Major > 2 || Patch == other.Patch);

    public static bool operator <(KernelRelease left, KernelRelease right) => left.CompareTo(right) < 0;

    public static bool operator >(KernelRelease left, KernelRelease right) => left.CompareTo(right) > 0;

    public static bool operator <=(KernelRelease left, KernelRelease right) => left.CompareTo(right) <= 0;

    public static bool operator >=(KernelRelease left, KernelRelease right) => left.CompareTo(right) >= 0;

    /// <inheritdoc/>
    public override string ToString() =>
        Patch == 0 ? string.Create(CultureInfo.InvariantCulture, $"{Major}.{Minor}")
            : string.Create(CultureInfo.InvariantCulture, $"{Major}.{Minor}.{Patch}");
}
