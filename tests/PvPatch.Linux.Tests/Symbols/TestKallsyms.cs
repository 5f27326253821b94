using System.Buffers.Binary;

namespace PvPatch.Linux.Tests.Symbols;

/// <summary>In which order the tables stand, how they are aligned, and how long names and addresses are written.</summary>
public enum KallsymsLayout
{
    /// <summary>5.10: addresses first, lengths of one byte.</summary>
    Linux510,

    /// <summary>6.2 (and 6.1 from 6.1.60 on): the order by name before the tokens, lengths of two bytes.</summary>
    Linux62,

    /// <summary>6.4 to 6.19: addresses behind the tokens, order by name last.</summary>
    Linux64,

    /// <summary>7.0: no base, tables aligned to four bytes.</summary>
    Linux70,
}

/// <summary>How addresses are written.</summary>
public enum KallsymsNumbers
{
    BaseRelative,
    PerCpuAbsolute,
    PlaceRelative,
    Absolute,
}

/// <summary>Writes the tables of kallsyms, from the description of the format and not from its reader.</summary>
internal sealed class TestKallsyms(KallsymsLayout layout, KallsymsNumbers numbers, int bitness, ulong address)
{
    private static readonly string[] s_substrings =
        ["paravirt", "_nop", "sys_", "__", "Tdo_", "tstatic_", "ing", "er_", "ops", ".isra.0", "read", "write", "_of", "0x", "12", "34"];

    private readonly List<byte> _bytes = [];
    private readonly int _alignment = layout == KallsymsLayout.Linux70 ? 4 : bitness / 8;

    /// <summary>What relative numbers count from, where they count from a base.</summary>
    public ulong Base { get; init; } = bitness == 64 ? 0xffffffff81000000 : 0xc1000000;

    /// <summary>Where each table starts, by its kernel name.</summary>
    public Dictionary<string, int> Offsets { get; } = [];

    /// <summary>The bytes, to stand at the address given.</summary>
    /// <param name="symbols">In the order in which the kernel has them: by address.</param>
    public byte[] Build(IReadOnlyList<(ulong Address, char Type, string Name)> symbols)
    {
        string[] tokens = Tokens(symbols);
        if (layout is KallsymsLayout.Linux510 or KallsymsLayout.Linux62)
        {
            WriteAddresses(symbols);
        }

        Label("num_syms");
        Word((uint)symbols.Count);
        Label("names");
        var markers = new List<uint>();
        for (int i = 0; i < symbols.Count; i++)
        {
            if (i % 256 == 0)
            {
                markers.Add((uint)(_bytes.Count - Offsets["names"]));
            }

            WriteName(Compress(symbols[i].Type + symbols[i].Name, tokens));
        }

        Label("markers");
        markers.ForEach(Word);
        if (layout == KallsymsLayout.Linux62)
        {
            WriteOrderByName(symbols);
        }

        WriteTokens(tokens);
        if (layout is KallsymsLayout.Linux64 or KallsymsLayout.Linux70)
        {
            WriteAddresses(symbols);
            WriteOrderByName(symbols);
        }

        return [.. _bytes];
    }

    private static string[] Tokens(IReadOnlyList<(ulong Address, char Type, string Name)> symbols)
    {
        // A character that is used stands for itself; the codes that are free stand for longer strings.
        var tokens = new string[256];
        foreach (char c in symbols.SelectMany(s => s.Type + s.Name))
        {
            tokens[c] = c.ToString();
        }

        int next = 0;
        for (int i = 0; i < tokens.Length; i++)
        {
            tokens[i] ??= next < s_substrings.Length ? s_substrings[next++] : "zz" + (char)('a' + (i % 26)) + i;
        }

        return tokens;
    }

    private static byte[] Compress(string text, string[] tokens)
    {
        var codes = new List<byte>();
        for (int at = 0; at < text.Length;)
        {
            int best = text[at];
            for (int i = 0; i < tokens.Length; i++)
            {
                best = tokens[i].Length > tokens[best].Length && string.CompareOrdinal(text, at, tokens[i], 0, tokens[i].Length) == 0
                    ? i : best;
            }

            codes.Add((byte)best);
            at += tokens[best].Length;
        }

        return [.. codes];
    }

    private void WriteName(byte[] codes)
    {
        if (layout != KallsymsLayout.Linux510 && codes.Length > 0x7f)
        {
            _bytes.Add((byte)((codes.Length & 0x7f) | 0x80));
            _bytes.Add((byte)(codes.Length >> 7));
        }
        else
        {
            _bytes.Add((byte)codes.Length);
        }

        _bytes.AddRange(codes);
    }

    private void WriteTokens(string[] tokens)
    {
        Label("token_table");
        var starts = new List<ushort>();
        foreach (string token in tokens)
        {
            starts.Add((ushort)(_bytes.Count - Offsets["token_table"]));
            _bytes.AddRange(System.Text.Encoding.ASCII.GetBytes(token + "\0"));
        }

        Label("token_index");
        foreach (ushort start in starts)
        {
            _bytes.AddRange([(byte)start, (byte)(start >> 8)]);
        }
    }

    private void WriteAddresses(IReadOnlyList<(ulong Address, char Type, string Name)> symbols)
    {
        Label("offsets");
        foreach ((ulong symbol, _, _) in symbols)
        {
            Word(unchecked((uint)(numbers switch
            {
                KallsymsNumbers.BaseRelative => symbol - Base,
                KallsymsNumbers.PerCpuAbsolute when symbol >= Base => Base - symbol - 1,
                KallsymsNumbers.PlaceRelative => symbol - (address + (ulong)_bytes.Count),
                _ => symbol,
            })));
        }

        if (numbers is KallsymsNumbers.BaseRelative or KallsymsNumbers.PerCpuAbsolute)
        {
            Label("relative_base");
            Span<byte> word = stackalloc byte[8];
            BinaryPrimitives.WriteUInt64LittleEndian(word, Base);
            _bytes.AddRange(word[..(bitness / 8)]);
        }
    }

    private void WriteOrderByName(IReadOnlyList<(ulong Address, char Type, string Name)> symbols)
    {
        Label("seqs_of_names");
        foreach (int i in Enumerable.Range(0, symbols.Count).OrderBy(i => symbols[i].Name, StringComparer.Ordinal))
        {
            _bytes.AddRange([(byte)(i >> 16), (byte)(i >> 8), (byte)i]);
        }
    }

    private void Label(string name)
    {
        while ((address + (ulong)_bytes.Count) % (ulong)_alignment != 0)
        {
            _bytes.Add(0);
        }

        Offsets[name] = (int)_bytes.Count;
    }

    private void Word(uint value)
    {
        Span<byte> word = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(word, value);
        _bytes.AddRange(word);
    }
}
