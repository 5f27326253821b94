using System.Globalization;
using System.Text.Json;
using PvPatch.Linux;
using PvPatch.Linux.Dumps;
using PvPatch.Linux.Verify;
using PvPatch.Plans;
using PvPatch.Tool.Info;

namespace PvPatch.Tool.Verify;

/// <summary>Report of <c>verify</c> on a memory dump.</summary>
internal sealed class MemoryReport
{
    private const int Indent = 2;
    private const int NameWidth = 14;
    private const int BytesWidth = 26;
    private static readonly CultureInfo s_culture = CultureInfo.InvariantCulture;

    private readonly KernelImage _image;
    private readonly MemoryVerification _result;
    private readonly string? _wanted;
    private readonly string _path;

    /// <param name="image">The kernel.</param>
    /// <param name="result">What was found.</param>
    /// <param name="wanted">The backend the machine should have run on; <see langword="null"/> for any.</param>
    /// <param name="path">The kernel's file.</param>
    public MemoryReport(KernelImage image, MemoryVerification result, string? wanted, string path)
    {
        _image = image;
        _path = path;
        _result = result;
        _wanted = wanted;
        IsOther = result.State == MemoryState.Patched && wanted is not null
            && !result.Tied.Prepend(result.Best).Any(c => c.Machine.Backend == wanted);
    }

    /// <summary>Whether all sites are those of one backend, which is not the one wanted.</summary>
    public bool IsOther { get; }

    public ExitCode ExitCode => _result.State switch
    {
        MemoryState.Patched => IsOther ? ExitCode.Different : _result.IsComplete ? ExitCode.Success : ExitCode.Incomplete,
        MemoryState.NotPatched => ExitCode.NotPatched,
        MemoryState.Mixed or MemoryState.Tampered => ExitCode.Different,
        _ => ExitCode.BadInput,
    };

    /// <summary>Findings on the memory as a whole; single sites are only counted.</summary>
    public IReadOnlyList<PatchDiagnostic> Diagnostics
    {
        get
        {
            IEnumerable<PatchDiagnostic> all = _result.ToDiagnostics(0).Concat(_result.Memory.Diagnostics);
            return [.. IsOther ? all.Prepend(Other()) : all];
        }
    }

    public void WriteJson(Utf8JsonWriter json) => MemoryVerificationJson.Write(_result, json, IsOther ? [Other()] : [], WriteAbout);

    public void WriteText(TextOutput output)
    {
        KernelMemory memory = _result.Memory;
        output.Line(memory.File.Path, Ink.Strong);
        Field(output, "memory", Format(memory.File));
        Field(output, "kernel", memory.ToString());
        Field(output, "sites", Counts());
        Field(output, "state", Verdict(), ExitCode == ExitCode.Success ? Ink.Good : Ink.Bad);
        if (_result.State != MemoryState.NotPatched)
        {
            WriteCandidates(output);
            WriteSites(output);
        }
    }

    private void WriteAbout(Utf8JsonWriter json)
    {
        json.WriteString("tool", JsonOutput.Tool);
        json.WriteString("image", _path);
        if (VersionBanner.Find(_image.Elf.File.Span) is string kernel)
        {
            json.WriteString("kernel", kernel);
        }
    }

    private static string Format(MemoryFile file)
    {
        string name = file.Kind switch
        {
            MemoryFileKind.ElfCore => "ELF core",
            MemoryFileKind.Lime => "LiME dump",
            MemoryFileKind.Kdump => "compressed kernel dump",
            _ => "raw",
        };
        return file.IsFlattened ? $"{name}, flattened" : name;
    }

    private string Counts()
    {
        string left = _result.Count(MemorySiteState.Freed) is > 0 and int freed
            ? string.Create(s_culture, $", {freed} in freed memory") : "";
        left += _result.Count(MemorySiteState.Unreadable) is > 0 and int unreadable
            ? string.Create(s_culture, $", {unreadable} not in the dump") : "";
        return string.Create(s_culture, $"{_result.Compared} of {_result.Sites.Count} compared{left}");
    }

    private string Verdict()
    {
        string best = _result.Best.Backend;
        return _result.State switch
        {
            MemoryState.Patched when IsOther => $"patched for {best}, not for {_wanted}",
            MemoryState.Patched => $"patched for {best}: {Every()} holds its bytes{NotSeen()}",
            MemoryState.NotPatched => $"not patched: {Every()} holds its original bytes{NotSeen()}",
            MemoryState.Mixed => $"mixed: {Sites(_result.MixedSites().Count())} other known bytes than {best} has",
            _ => $"tampered: {Sites(_result.Count(MemorySiteState.Tampered))} bytes that nothing accounts for; the others are nearest "
                + $"to {best}",
        };
    }

    /// <summary>Sites without a verdict. Sites that the kernel frees after its start do not count.</summary>
    private string NotSeen() =>
        _result.IsComplete ? "" : string.Create(s_culture, $"; of {_result.Missing} that the dump lacks nothing is known");

    private string Every() => _result.Compared == _result.Sites.Count ? "every site" : "every site compared";

    /// <summary>Number of sites that each backend accounts for, in its best setting.</summary>
    private void WriteCandidates(TextOutput output)
    {
        output.Line();
        output.Column("  backend", 40, Ink.Faint).Line("sites that hold its bytes", Ink.Faint);
        foreach (IGrouping<string, CandidateMatch> backend in _result.Candidates.GroupBy(static c => c.Machine.Backend))
        {
            CandidateMatch best = backend.MaxBy(static c => c.Matched)!;
            foreach (
                CandidateMatch candidate in best.Matched == _result.Best.Matched ? backend.Where(c => c.Matched == best.Matched) : [best])
            {
                bool isBest = candidate.Matched == _result.Best.Matched;
                output.Column($"  {candidate.Backend}", 40, isBest ? Ink.Good : Ink.Plain)
                    .Line(string.Create(s_culture, $"{candidate.Matched,6} of {_result.Compared}"));
            }
        }
    }

    private void WriteSites(TextOutput output)
    {
        var names = new KernelNames(_image);
        var disassembler = new Disassembler(_result.Memory.Bitness, names.NameOf);
        foreach (SiteVerification site in _result.State == MemoryState.Mixed
            ? _result.MixedSites() : _result.Sites.Where(static s => s.State == MemorySiteState.Tampered))
        {
            output.Line();
            string function = names.PlaceOf(site.Address) is string place ? $"{place}, " : "";
            output.Write($"{site.Address} {site.Decision.Label}", Ink.Strong).Line($" ({function}{site.Decision.Section})");
            Code(output, disassembler, site, "found", site.Found.Span, site.State == MemorySiteState.Tampered
                ? "" : $"({string.Join(", ", site.IsOriginal ? site.Backends.Prepend(AllowedSite.Original) : site.Backends)})", Ink.Bad);
            foreach (AllowedBytes allowed in _result.AllowedAt(site))
            {
                Code(output, disassembler, site, allowed.Of[0] == AllowedSite.Original ? AllowedSite.Original : "expected",
                    allowed.Bytes.Span, $"({string.Join(", ", Shortest(allowed.Of))})", Ink.Plain);
            }
        }
    }

    /// <summary>The names, without those that only add options to another one.</summary>
    private static IEnumerable<string> Shortest(IReadOnlyList<string> names) =>
        names.Where(name => !names.Any(other => name.StartsWith(other + " ", StringComparison.Ordinal)));

    private static string Sites(int count) => count == 1 ? "1 site holds" : string.Create(s_culture, $"{count} sites hold");

    private static void Code(
        TextOutput output, Disassembler disassembler, SiteVerification site, string name, ReadOnlySpan<byte> bytes, string of, Ink ink) =>
        output.Column(new string(' ', Indent) + name, NameWidth, Ink.Faint).Column(HexBytes.Format(bytes), BytesWidth, Ink.Faint)
            .Write(disassembler.Line(bytes, site.Address), ink).Line($"  {of}".TrimEnd(), Ink.Faint);

    private static void Field(TextOutput output, string name, string value, Ink ink = Ink.Plain) =>
        output.Column(new string(' ', Indent) + name, NameWidth, Ink.Faint).Line(value, ink);

    private PatchDiagnostic Other() =>
        PatchDiagnostic.Error(ToolDiagnosticCodes.AnotherBackend, "the machine did not run on the backend asked for") with
        {
            Source = _result.Memory.File.Path,
            Found = _result.Best.Backend,
            Expected = _wanted,
        };
}
