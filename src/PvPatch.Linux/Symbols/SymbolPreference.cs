namespace PvPatch.Linux.Symbols;

/// <summary>
/// Which of several symbols of one address (or one name) is meant: a function before data, global before weak before local, the name
/// of a thing before the mark where a section starts or ends, a name as written in the source before one that compiler or build made.
/// What is equal in all that is taken in the order of the source, which is the kernel's own choice in its messages.
/// </summary>
internal static class SymbolPreference
{
    private const int SectionMark = 100;
    private const int MadeByTools = 1;

    // The second name, since 6.17, of everything that start-up code at another address may use.
    private static ReadOnlySpan<byte> EarlyAlias => "__pi_"u8;

    /// <summary>The smaller, the better.</summary>
    public static int Rank(char type, ReadOnlySpan<byte> name)
    {
        int rank = RankOfType(type);
        bool isAlias = name.StartsWith(EarlyAlias);
        if (isAlias || name.Contains((byte)'.'))
        {
            // .isra.0, .constprop.0, .cold, .part.0: clones and pieces of a function
            rank += MadeByTools;
            name = isAlias ? name[EarlyAlias.Length..] : name;
        }

        return IsSectionMark(name) ? rank + SectionMark : rank;
    }

    public static int RankOfType(char type) => type switch
    {
        'T' => 0,
        'W' or 'w' => 2,
        't' => 4,
        'D' or 'B' or 'R' or 'G' or 'S' => 6,
        'V' or 'v' => 8,
        'd' or 'b' or 'r' or 'g' or 's' => 10,
        _ => 12,
    };

    private static bool IsSectionMark(ReadOnlySpan<byte> name) => name.Length > 0 && name[0] == '_'
        && (name.EndsWith("_start"u8) || name.EndsWith("_begin"u8) || name.EndsWith("_end"u8) || name.EndsWith("_stop"u8)
            || name.StartsWith("__start_"u8) || name.StartsWith("__stop_"u8) || name.StartsWith("__end_"u8)
            || name.SequenceEqual("_text"u8) || name.SequenceEqual("_stext"u8) || name.SequenceEqual("_etext"u8)
            || name.SequenceEqual("_sinittext"u8) || name.SequenceEqual("_einittext"u8)
            || name.SequenceEqual("_sdata"u8) || name.SequenceEqual("_edata"u8) || name.SequenceEqual("_end"u8));
}
