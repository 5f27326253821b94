namespace PvPatch.LiveTorture;

/// <summary>
/// What the host tells generated code of its settings: a word for each, with a number that no word had before, whether the setting is in
/// motion, and its value. Who reads the same word twice knows that the setting stood still in between.
/// <code>
/// 63            16  15    9  8  7     0
/// | number        |   0    | m | value |
/// </code>
/// </summary>
internal sealed class SettingWords(int count)
{
    public const long InMotion = 0x100;

    private long _number;

    /// <summary>The words, which do not move.</summary>
    public long[] All { get; } = GC.AllocateArray<long>(count, pinned: true);

    /// <summary>The values to be told.</summary>
    public long[] Values { get; } = new long[count];

    /// <summary>Tells some words; before the first store to a site, where they are set in motion.</summary>
    public void Tell(ReadOnlySpan<bool> chosen, bool inMotion)
    {
        for (int i = 0; i < chosen.Length; i++)
        {
            if (chosen[i])
            {
                Tell(i, inMotion);
            }
        }

        Interlocked.MemoryBarrier();
    }

    /// <summary>Tells one word. Whose word it is at the moment is up to the caller: two threads must not tell the same.</summary>
    public void Tell(int word, bool inMotion) =>
        Volatile.Write(ref All[word], Interlocked.Increment(ref _number) << 16 | (inMotion ? InMotion : 0) | Values[word]);
}
