using System.Text.Json;

namespace PvPatch;

/// <summary>Diagnostics as JSON objects: <c>code</c>, <c>severity</c>, <c>message</c>, and of the rest what there is.</summary>
internal static class DiagnosticJson
{
    /// <summary>Writes one diagnostic as an object.</summary>
    /// <param name="diagnostic">The diagnostic.</param>
    /// <param name="json">Where to. Not flushed.</param>
    public static void Write(PatchDiagnostic diagnostic, Utf8JsonWriter json)
    {
        ArgumentNullException.ThrowIfNull(diagnostic);
        ArgumentNullException.ThrowIfNull(json);
        json.WriteStartObject();
        json.WriteString("code", diagnostic.Code);
        json.WriteString("severity", JsonNamingPolicy.CamelCase.ConvertName(diagnostic.Severity.ToString()));
        json.WriteString("message", diagnostic.Message);
        Write(json, "source", diagnostic.Source);
        if (diagnostic.SiteIndex is int index)
        {
            json.WriteNumber("site", index);
        }

        Write(json, "address", diagnostic.Address is VirtualAddress address ? HexBytes.Format(address) : null);
        if (diagnostic.FileOffset is long offset)
        {
            json.WriteNumber("fileOffset", offset);
        }

        Write(json, "found", diagnostic.Found);
        Write(json, "expected", diagnostic.Expected);
        Write(json, "help", diagnostic.Help);
        json.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter json, string name, string? value)
    {
        if (value is not null)
        {
            json.WriteString(name, value);
        }
    }
}
