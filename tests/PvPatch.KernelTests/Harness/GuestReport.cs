using System.Globalization;
using System.IO.Compression;

namespace PvPatch.KernelTests.Harness;

/// <summary>What the guest's user space told about its kernel.</summary>
public sealed class GuestReport
{
    private readonly Dictionary<string, string> _sections;

    private GuestReport(Dictionary<string, string> sections, IReadOnlyDictionary<string, ulong>? symbols)
    {
        _sections = sections;
        Symbols = symbols ?? ReadSymbols(sections["kallsyms"]);
        CpuFlags = ReadFlags(sections["cpuinfo"]);
        ModuleSections = ReadModules(sections.GetValueOrDefault("modules", string.Empty));
    }

    /// <summary>
    /// Addresses of the kernel's own symbols (no modules); without KASLR these are link addresses. Of several
    /// symbols with one name, which static functions may have, the lowest address.
    /// </summary>
    public IReadOnlyDictionary<string, ulong> Symbols { get; }

    /// <summary>The flags line of /proc/cpuinfo.</summary>
    public IReadOnlySet<string> CpuFlags { get; }

    /// <summary>/proc/cpuinfo.</summary>
    public string CpuInfo => _sections["cpuinfo"];

    /// <summary>/proc/kallsyms, read as root.</summary>
    public string Kallsyms => _sections["kallsyms"];

    /// <summary>
    /// Addresses of the sections of the modules that are loaded, by module (with _ for -) and section; empty where the guest
    /// was given no modules. Those of the init sections are freed by then.
    /// </summary>
    public IReadOnlyDictionary<string, IReadOnlyDictionary<string, ulong>> ModuleSections { get; }

    /// <summary>What the guest's program wrote to both of its outputs; empty where it was given none.</summary>
    public string Output => _sections.GetValueOrDefault("program", string.Empty);

    /// <summary>The kernel's log.</summary>
    public string Log => _sections["dmesg"];

    /// <summary>/proc/cmdline.</summary>
    public string CommandLine => _sections["cmdline"].Trim();

    /// <summary>Address of a symbol.</summary>
    /// <exception cref="KeyNotFoundException">
    /// The kernel has none of this name: inlined, of another version, or data on i386 (Debian builds that without
    /// KALLSYMS_ALL).
    /// </exception>
    public ulong Symbol(string name)
    {
        return Symbols.TryGetValue(name, out ulong address)
            ? address
            : throw new KeyNotFoundException($"The guest's kallsyms has no symbol '{name}'.");
    }

    /// <summary>A physical range of /proc/iomem, for example "Kernel code": first address and first address behind.</summary>
    public (ulong Start, ulong End) PhysicalRange(string name)
    {
        // "  01000000-01a02ad6 : Kernel code", the second address being the last one inside
        string line = _sections["iomem"].Split('\n').FirstOrDefault(l => l.EndsWith($" : {name}", StringComparison.Ordinal))
            ?? throw new KeyNotFoundException($"The guest's /proc/iomem has no '{name}'.");
        string[] addresses = line.Split(" : ")[0].Trim().Split('-');
        return (ulong.Parse(addresses[0], NumberStyles.HexNumber, null), ulong.Parse(addresses[1], NumberStyles.HexNumber, null) + 1);
    }

    /// <summary>The report, or null as long as it is not complete.</summary>
    /// <param name="compressed">What came so far.</param>
    /// <param name="symbols">The symbols if the guest was told not to report them.</param>
    internal static GuestReport? TryParse(byte[] compressed, IReadOnlyDictionary<string, ulong>? symbols)
    {
        string text;
        try
        {
            using GZipStream stream = new(new MemoryStream(compressed), CompressionMode.Decompress);
            using StreamReader reader = new(stream, System.Text.Encoding.Latin1);
            text = reader.ReadToEnd();
        }
        catch (InvalidDataException)
        {
            // The last bytes are still in the serial port.
            return null;
        }

        Dictionary<string, string> sections = [];
        foreach (string part in $"\n{text}".Split("\n@@", StringSplitOptions.RemoveEmptyEntries))
        {
            int lineEnd = part.IndexOf('\n', StringComparison.Ordinal);
            string name = lineEnd < 0 ? part.Trim() : part[..lineEnd];
            sections.TryAdd(name, lineEnd < 0 ? string.Empty : part[(lineEnd + 1)..]);
        }

        return sections.ContainsKey("end") ? new GuestReport(sections, symbols) : null;
    }

    private static Dictionary<string, ulong> ReadSymbols(string kallsyms)
    {
        // "ffffffff81000000 T _text"; a fourth word names a module.
        Dictionary<string, ulong> symbols = new(200_000);
        foreach (ReadOnlySpan<char> line in kallsyms.AsSpan().EnumerateLines())
        {
            int typeStart = line.IndexOf(' ') + 1;
            if (typeStart < 1 || line.Length < typeStart + 3 || line.Contains('\t') || line.Contains('['))
            {
                continue;
            }

            if (ulong.TryParse(line[..(typeStart - 1)], NumberStyles.HexNumber, null, out ulong address))
            {
                symbols.TryAdd(line[(typeStart + 2)..].ToString(), address);
            }
        }

        return symbols;
    }

    private static Dictionary<string, IReadOnlyDictionary<string, ulong>> ReadModules(string text)
    {
        // "/sys/module/kvm/sections/.text:0xffffffffc0201000"
        return text.Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(static line => line.Split('/', ':'))
            .GroupBy(static parts => parts[3])
            .ToDictionary(
                static module => module.Key,
                static module => (IReadOnlyDictionary<string, ulong>)module.ToDictionary(
                    static parts => parts[5], static parts => ulong.Parse(parts[6].AsSpan(2), NumberStyles.HexNumber, null)));
    }

    private static HashSet<string> ReadFlags(string cpuInfo)
    {
        string line = cpuInfo.Split('\n').FirstOrDefault(static l => l.StartsWith("flags", StringComparison.Ordinal))
            ?? string.Empty;
        return [.. line[(line.IndexOf(':', StringComparison.Ordinal) + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries)];
    }
}
