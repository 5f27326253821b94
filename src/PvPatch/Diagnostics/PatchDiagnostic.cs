using System.Globalization;
using System.Text;

namespace PvPatch;

/// <summary>
/// One finding, as data: a stable code, where it was found, what was found there, what was expected and what to do.
/// </summary>
/// <remarks>
/// The codes are listed in <c>docs/diagnostics.md</c>; a code never changes its meaning. Codes <c>PV0xxx</c> are about lazy
/// modes, <c>PV1xxx</c> about site tables, <c>PV2xxx</c> about ops and backends, <c>PV3xxx</c> about planning, <c>PV4xxx</c> about
/// applying, verifying and reverting, <c>PV5xxx</c> about stored plans, <c>PV6xxx</c> about kernel images, <c>PV7xxx</c> about the
/// command-line tool, <c>PV8xxx</c> about live code, <c>PV9xxx</c> about the analysis of code.
/// </remarks>
public sealed record PatchDiagnostic
{
    /// <summary>Makes a diagnostic.</summary>
    /// <param name="code">The stable code, for example <c>PV1003</c>.</param>
    /// <param name="severity">How grave it is.</param>
    /// <param name="message">One sentence saying what is wrong, without a full stop.</param>
    public PatchDiagnostic(string code, DiagnosticSeverity severity, string message)
    {
        ArgumentException.ThrowIfNullOrEmpty(code);
        ArgumentException.ThrowIfNullOrEmpty(message);
        Code = code;
        Severity = severity;
        Message = message;
    }

    /// <summary>The stable code, for example <c>PV1003</c>.</summary>
    public string Code { get; }

    /// <summary>How grave it is.</summary>
    public DiagnosticSeverity Severity { get; }

    /// <summary>One sentence saying what is wrong.</summary>
    public string Message { get; }

    /// <summary>The file, backend or table the finding is about, where there is one.</summary>
    public string? Source { get; init; }

    /// <summary>The index of the site in its table (0-based), where the finding is about one site.</summary>
    public int? SiteIndex { get; init; }

    /// <summary>The run address the finding is about.</summary>
    public VirtualAddress? Address { get; init; }

    /// <summary>The offset in bytes from the start of the file, where the finding is about a file.</summary>
    public long? FileOffset { get; init; }

    /// <summary>What was found, as text (often bytes in hexadecimal).</summary>
    public string? Found { get; init; }

    /// <summary>What was expected instead.</summary>
    public string? Expected { get; init; }

    /// <summary>What to do about it.</summary>
    public string? Help { get; init; }

    /// <summary>Makes an error.</summary>
    /// <param name="code">The stable code.</param>
    /// <param name="message">One sentence saying what is wrong.</param>
    /// <returns>A diagnostic of severity <see cref="DiagnosticSeverity.Error"/>.</returns>
    public static PatchDiagnostic Error(string code, string message) => new(code, DiagnosticSeverity.Error, message);

    /// <summary>Makes a warning.</summary>
    /// <param name="code">The stable code.</param>
    /// <param name="message">One sentence saying what is odd.</param>
    /// <returns>A diagnostic of severity <see cref="DiagnosticSeverity.Warning"/>.</returns>
    public static PatchDiagnostic Warning(string code, string message) => new(code, DiagnosticSeverity.Warning, message);

    /// <summary>Writes the finding as one JSON object: what is not known is left out.</summary>
    /// <param name="json">The writer. It is not flushed.</param>
    public void WriteTo(System.Text.Json.Utf8JsonWriter json) => DiagnosticJson.Write(this, json);

    /// <summary>The whole finding on one line: severity, code, place, message, found, expected, help.</summary>
    /// <returns>One line of text.</returns>
    public override string ToString()
    {
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"{Severity.ToString().ToLowerInvariant()} {Code}: ");
        if (Source is not null)
        {
            text.Append(CultureInfo.InvariantCulture, $"{Source}: ");
        }

        text.Append(Message);
        AppendPlace(text);
        if (Found is not null)
        {
            text.Append(CultureInfo.InvariantCulture, $"; found {Found}");
        }

        if (Expected is not null)
        {
            text.Append(CultureInfo.InvariantCulture, $"; expected {Expected}");
        }

        if (Help is not null)
        {
            text.Append(CultureInfo.InvariantCulture, $". {Help}");
        }

        return text.ToString();
    }

    private void AppendPlace(StringBuilder text)
    {
        if (SiteIndex is int index)
        {
            text.Append(CultureInfo.InvariantCulture, $", site {index}");
        }

        if (Address is VirtualAddress address)
        {
            text.Append(CultureInfo.InvariantCulture, $", at {address}");
        }

        if (FileOffset is long offset)
        {
            text.Append(CultureInfo.InvariantCulture, $", file offset 0x{offset:x}");
        }
    }
}
