using PvPatch.Linux.Dumps;

namespace PvPatch.Linux.BootText;

/// <summary>Bytes in memory that differ from those predicted, one run.</summary>
/// <param name="Address">Link address of the first byte.</param>
/// <param name="Section">The section.</param>
/// <param name="Owner">The mechanism that wrote the first byte last; none where the file's byte was expected.</param>
/// <param name="Found">The bytes in memory.</param>
/// <param name="Expected">The bytes predicted.</param>
internal sealed record TextDifference(
    VirtualAddress Address, string Section, TextMechanism Owner, ReadOnlyMemory<byte> Found, ReadOnlyMemory<byte> Expected)
{
    /// <inheritdoc/>
    public override string ToString() =>
        $"{Address} {Section} {TextMechanisms.NameOf(Owner)}: {HexBytes.Format(Found.Span)}, predicted {HexBytes.Format(Expected.Span)}";
}

/// <summary>The bytes of one mechanism, counted to the last writer.</summary>
/// <param name="Mechanism">The mechanism.</param>
/// <param name="Changed">Bytes in memory that differ from the file's.</param>
/// <param name="AsBooted">Those of them that are as predicted.</param>
/// <param name="Wrong">Bytes that are not as predicted, changed or not.</param>
internal readonly record struct MechanismBytes(TextMechanism Mechanism, long Changed, long AsBooted, long Wrong);

/// <summary>Memory compared with a prediction, over all executable sections.</summary>
internal sealed class TextComparison
{
    private const int MostDifferences = 1000;
    private const int PageSize = 4096;

    private readonly long[] _changed = new long[TextMechanisms.Count];
    private readonly long[] _asBooted = new long[TextMechanisms.Count];
    private readonly long[] _wrong = new long[TextMechanisms.Count];
    private readonly List<TextDifference> _differences = [];

    private TextComparison()
    {
    }

    /// <summary>Bytes of text.</summary>
    public long Bytes { get; private set; }

    /// <summary>Bytes in memory that differ from the file's.</summary>
    public long Changed { get; private set; }

    /// <summary>Changed bytes that are as predicted.</summary>
    public long AsBooted { get; private set; }

    /// <summary>Bytes that are not as predicted.</summary>
    public long Unexplained { get; private set; }

    /// <summary>Bytes that were not compared: not in the memory, freed, or not decided by the state.</summary>
    public long NotCompared { get; private set; }

    /// <summary>Of <see cref="NotCompared"/>, those that the state leaves open.</summary>
    public long Open { get; private set; }

    /// <summary>The differences, in order of address; the first thousand.</summary>
    public IReadOnlyList<TextDifference> Differences => _differences;

    /// <summary>The bytes by mechanism; those of no mechanism too.</summary>
    public IReadOnlyList<MechanismBytes> Mechanisms =>
    [
        .. Enumerable.Range(0, TextMechanisms.Count)
            .Select(i => new MechanismBytes((TextMechanism)i, _changed[i], _asBooted[i], _wrong[i]))
            .Where(static m => m.Changed != 0 || m.Wrong != 0),
    ];

    /// <summary>Compares.</summary>
    /// <param name="text">The prediction.</param>
    /// <param name="memory">The memory.</param>
    public static TextComparison Compare(TextImage text, KernelMemory memory)
    {
        var comparison = new TextComparison();
        foreach (TextSection section in text.Sections)
        {
            comparison.Add(section, memory);
        }

        return comparison;
    }

    /// <summary>The bytes of one mechanism.</summary>
    public MechanismBytes Of(TextMechanism mechanism) =>
        new(mechanism, _changed[(int)mechanism], _asBooted[(int)mechanism], _wrong[(int)mechanism]);

    private void Add(TextSection section, KernelMemory memory)
    {
        Bytes += section.Length;
        byte[] found = new byte[section.Length];
        if (memory.TryRead(section.Address, found))
        {
            if (section.IsPatchedLate && section.Original.SequenceEqual(found))
            {
                return; // not patched yet: nothing is changed
            }

            if (InitAreas.IsFreed(section.Name) && IsGivenAway(section, found))
            {
                NotCompared += section.Length;
                return;
            }

            Add(section, 0, found);
            return;
        }

        // Page by page: a dump may lack some.
        for (int at = 0; at < section.Length;)
        {
            int length = Math.Min(PageSize - (int)((section.Address.Value + (ulong)at) % PageSize), section.Length - at);
            Span<byte> page = found.AsSpan(at, length);
            if (!memory.TryRead(section.Address + at, page))
            {
                NotCompared += length;
            }
            else if (!InitAreas.IsFreed(section.Name))
            {
                Add(section, at, page);
            }
            else
            {
                NotCompared += length;
            }

            at += length;
        }
    }

    /// <summary>
    /// Whether the section is freed: most of its pages hold something else. The sections of the start are freed in one go.
    /// </summary>
    private static bool IsGivenAway(TextSection section, ReadOnlySpan<byte> found)
    {
        int other = 0;
        for (int i = 0; i < found.Length; i++)
        {
            other += found[i] != section.Bytes[i] ? 1 : 0;
        }

        return other > found.Length / 2;
    }

    private void Add(TextSection section, int start, ReadOnlySpan<byte> found)
    {
        ReadOnlySpan<byte> expected = section.Bytes.Slice(start, found.Length);
        ReadOnlySpan<byte> original = section.Original.Slice(start, found.Length);
        int run = -1;
        for (int i = 0; i < found.Length; i++)
        {
            bool isChanged = found[i] != original[i];
            bool isOpen = section.IsOpen(start + i);
            bool isWrong = found[i] != expected[i] && !isOpen;
            if (isChanged || isWrong)
            {
                Count((int)section.OwnerAt(start + i), isChanged, isWrong, isOpen);
            }

            Open += isOpen ? 1 : 0;
            NotCompared += isOpen ? 1 : 0;
            if (isWrong)
            {
                run = run < 0 ? i : run;
            }
            else if (run >= 0)
            {
                AddRun(section, start, run, i, found, expected);
                run = -1;
            }
        }

        if (run >= 0)
        {
            AddRun(section, start, run, found.Length, found, expected);
        }
    }

    private void Count(int owner, bool isChanged, bool isWrong, bool isOpen)
    {
        Changed += isChanged ? 1 : 0;
        _changed[owner] += isChanged ? 1 : 0;
        Unexplained += isWrong ? 1 : 0;
        _wrong[owner] += isWrong ? 1 : 0;
        if (isChanged && !isWrong && !isOpen)
        {
            AsBooted++;
            _asBooted[owner]++;
        }
    }

    private void AddRun(TextSection section, int start, int from, int to, ReadOnlySpan<byte> found, ReadOnlySpan<byte> expected)
    {
        if (_differences.Count < MostDifferences)
        {
            _differences.Add(new TextDifference(
                section.Address + start + from, section.Name, section.OwnerAt(start + from), found[from..to].ToArray(),
                expected[from..to].ToArray()));
        }
    }
}
