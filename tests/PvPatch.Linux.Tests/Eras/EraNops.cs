namespace PvPatch.Linux.Tests.Eras;

/// <summary>
/// The no-operations that kernels to 5.12 fill sites with, as assembler macros of a letter and a length: i intel, k K8, a K7, p P6. The
/// bytes are those of the kernels' tables; where the assembler would choose another form of an instruction they are spelled out.
/// </summary>
internal static class EraNops
{
    private static readonly Dictionary<char, string[]> s_bytes = new()
    {
        ['i'] = ["90", "89 f6", "8d 76 00", "8d 74 26 00", "90 8d 74 26 00", "8d b6 00 00 00 00", "8d b4 26 00 00 00 00",
            "90 8d b4 26 00 00 00 00"],
        ['k'] = ["90", "66 90", "66 66 90", "66 66 66 90", "66 66 90 66 90", "66 66 90 66 66 90", "66 66 66 90 66 66 90",
            "66 66 66 90 66 66 66 90"],
        ['a'] = ["90", "8b c0", "8d 04 20", "8d 44 20 00", "8d 44 20 00 90", "8d 80 00 00 00 00", "8d 04 05 00 00 00 00",
            "8d 04 05 00 00 00 00 90"],
        ['p'] = ["90", "66 90", "0f 1f 00", "0f 1f 40 00", "0f 1f 44 00 00", "66 0f 1f 44 00 00", "0f 1f 80 00 00 00 00",
            "0f 1f 84 00 00 00 00 00"],
    };

    /// <summary>The macros.</summary>
    public static string Macros => string.Join('\n', s_bytes.SelectMany(family => family.Value.Select((bytes, i) =>
        $".macro {family.Key}{i + 1}\n.byte {string.Join(", ", bytes.Split(' ').Select(b => "0x" + b))}\n.endm"))) + "\n";
}
